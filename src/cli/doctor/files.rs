//! The secret and the data directory.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{Finding, ask, size};
use crate::net::Secret;

/// Below this a data directory is about to be full.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// Files of a data directory that are looked at for locks.
const FILES_MAX: usize = 1024;

/// Whether there is a secret that a node would take.
pub(super) fn secret(path: Option<&Path>, listen: SocketAddr) -> Finding {
    let Some(path) = path else {
        return match listen.ip().is_loopback() {
            true => Finding::ok("secret", "none: a node serves this machine only"),
            false => Finding::fail(
                "secret",
                format!("none, but other machines can reach {listen}: a node would not start"),
                "`quorumor keygen FILE`, copy the file to every machine, and --secret-file FILE",
            ),
        };
    };
    let name = path.display();
    match Secret::read(path) {
        Ok(_) => Finding::ok("secret", format!("{name} holds one, and only its owner can read it")),
        Err(error) if path.exists() => {
            let owner = format!("`chmod 600 {name}` and its owner's account, or a copy of it");
            Finding::fail("secret", error.to_string(), owner)
        }
        Err(error) => Finding::fail(
            "secret",
            error.to_string(),
            format!(
                "copy it from another machine; the first one of a cluster: `quorumor keygen {name}`"
            ),
        ),
    }
}

/// Whether a node could keep its data there.
pub(super) fn data(path: &Path) -> Vec<Finding> {
    let name = path.display();
    let existing = path.ancestors().find(|it| it.as_os_str().is_empty() || it.exists());
    // A path like `data` stands in the current directory.
    let existing = match existing {
        Some(it) if !it.as_os_str().is_empty() => it,
        _ => Path::new("."),
    };
    if !existing.is_dir() {
        let what = format!("{} is no directory", existing.display());
        return vec![Finding::fail("data", what, "choose another one with --data")];
    }
    let mut findings = vec![match writable(existing) {
        Ok(()) if path == existing => Finding::ok("data", format!("{name} can be written")),
        Ok(()) => Finding::ok("data", format!("{name} does not exist yet and can be made")),
        Err(error) => Finding::fail(
            "data",
            format!("{} cannot be written: {error}", existing.display()),
            format!("`chown` it to the node's account, or choose another one with --data ({name})"),
        ),
    }];
    if path.exists() {
        findings.extend(mode(path));
        findings.extend(locks(path));
    }
    findings.extend(space(existing));
    findings
}

/// Makes a file and removes it.
fn writable(folder: &Path) -> io::Result<()> {
    let trial = folder.join(format!(".quorumor-doctor-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).open(&trial)?;
    fs::remove_file(&trial)
}

#[cfg(unix)]
fn mode(path: &Path) -> Option<Finding> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| {
        Finding::warn(
            "data",
            format!("{} is open to other accounts (mode {mode:03o})", path.display()),
            format!("`chmod 700 {}`", path.display()),
        )
    })
}

#[cfg(not(unix))]
fn mode(_: &Path) -> Option<Finding> {
    None
}

/// Who has locked a file in the directory; Linux says so in `/proc/locks`, by device and file number.
#[cfg(unix)]
fn locks(path: &Path) -> Option<Finding> {
    use std::os::unix::fs::MetadataExt;
    let table = fs::read_to_string("/proc/locks").ok()?;
    let files = fs::read_dir(path).ok()?.flatten().take(FILES_MAX);
    let files: Vec<PathBuf> = files.map(|file| file.path()).chain([path.to_owned()]).collect();
    let held = files.iter().find_map(|file| {
        let inode = fs::metadata(file).ok()?.ino();
        Some((file, lock_holder(&table, inode)?))
    });
    let (file, process) = held?;
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    let name = name.trim();
    let what = format!("{} is locked by {name} (process {process})", file.display());
    Some(match name {
        "quorumor" => Finding::ok("data", format!("{what}: a node runs on it")),
        _ => Finding::fail("data", what, "end that program, or choose another directory"),
    })
}

#[cfg(not(unix))]
fn locks(_: &Path) -> Option<Finding> {
    None
}

/// The process that has locked the file of this number. Two file systems may use the same number;
/// that it is a node's file is then a guess, and one in a great many.
fn lock_holder(table: &str, inode: u64) -> Option<u32> {
    table.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let at = words.iter().position(|word| word.matches(':').count() == 2)?;
        let (_, number) = words[at].rsplit_once(':')?;
        let same = number.parse::<u64>().is_ok_and(|number| number == inode);
        let before = at.checked_sub(1).and_then(|at| words.get(at))?;
        before.parse().ok().filter(|_| same)
    })
}

fn space(folder: &Path) -> Option<Finding> {
    let table = ask("df", &["-Pk", folder.to_str()?])?;
    let free = free_bytes(&table)?;
    let what = format!("{} free", size(free));
    Some(if free < FREE_BYTES_MIN {
        Finding::warn(
            "data",
            format!("only {what}; a node refuses writes when its disk is full"),
            "make room, or choose another disk with --data",
        )
    } else {
        Finding::ok("data", what)
    })
}

/// The fourth column of what `df -Pk` prints (POSIX says so).
fn free_bytes(table: &str) -> Option<u64> {
    let row = table.lines().nth(1)?;
    row.split_whitespace().nth(3)?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;

    const LOOPBACK: &str = "127.0.0.1:7400";
    const EVERYWHERE: &str = "0.0.0.0:7400";

    #[test]
    fn a_secret_is_needed_where_others_can_reach() {
        assert_eq!(secret(None, LOOPBACK.parse().unwrap()).health, Health::Ok);
        let finding = secret(None, EVERYWHERE.parse().unwrap());
        assert_eq!(finding.health, Health::Fail);
        assert!(finding.fix.unwrap().contains("keygen"));
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_that_others_can_read_fails_and_one_that_they_cannot_is_fine() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let listen = EVERYWHERE.parse().unwrap();
        assert!(secret(Some(&path), listen).fix.unwrap().contains("keygen"));
        Secret::generate().unwrap().write_new(&path).unwrap();
        assert_eq!(secret(Some(&path), listen).health, Health::Ok);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let finding = secret(Some(&path), listen);
        assert_eq!(finding.health, Health::Fail);
        assert!(finding.fix.unwrap().contains("chmod 600"));
    }

    #[cfg(unix)]
    #[test]
    fn a_data_directory_is_judged_and_left_as_it_was() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("a").join("b");
        let findings = data(&missing);
        assert!(findings[0].what.contains("can be made"), "{findings:?}");
        assert!(!missing.exists() && !folder.path().join("a").exists());

        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let findings = data(folder.path());
        assert!(
            findings.iter().any(|it| it.what.contains("open to other accounts")),
            "{findings:?}"
        );
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(data(folder.path()).iter().all(|it| !it.what.contains("open to")), "{findings:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");

        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(data(&file)[0].health, Health::Fail);
        assert_eq!(data(&file.join("below"))[0].health, Health::Fail);
    }

    #[test]
    fn tables_of_other_programs_are_read() {
        let locks = "1: FLOCK  ADVISORY  WRITE 1234 fe:01:4711 0 EOF\n2: POSIX  ADVISORY  READ 9 \
                     00:1a:5 0 EOF\n1: -> FLOCK ADVISORY WRITE 77 fe:01:99 0 EOF\nnonsense\n:: ::\n";
        assert_eq!(lock_holder(locks, 4711), Some(1234));
        assert_eq!(lock_holder(locks, 5), Some(9));
        assert_eq!(lock_holder(locks, 6), None);
        let df = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/x 10 4 6 40% /\n";
        assert_eq!(free_bytes(df), Some(6 * 1024));
        assert_eq!(free_bytes("nothing"), None);
    }
}
