//! Where the nodes stand: each with an address that it keeps, links that can be cut, a disk that can
//! be filled and a clock that can be set.
//!
//! In a sealed room each node is a machine with a network card of its own, all on one switch, and a
//! small disk of its own. Elsewhere all of them stand on loopback, where links and disks stay whole.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use crate::common::{Launch, finish, quorumor, succeed};

const PEER_PORT: u16 = 7400;
const RESP_PORT: u16 = 7401;
const HTTP_PORT: u16 = 7402;

/// The time between two rounds: short, so that more of them meet faults.
const INTERVAL: &str = "200ms";

/// How many bytes at a time a disk is filled with, at first.
const BALLAST_BYTES: usize = 1 << 20;

/// What a failing disk claims to have, and what it has.
const CLAIMED_BYTES: usize = 256 << 20;
const BEHIND_BYTES: usize = 40 << 20;

/// Machines and what joins them.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    size: usize,
    is_sealed: bool,
    /// The third byte of the addresses on loopback: tests run side by side.
    number: [u8; 2],
    clock: Option<PathBuf>,
}

impl Site {
    /// Machines in a sealed room, each with a disk of so many bytes.
    pub(crate) fn sealed(size: usize, disk_bytes: usize) -> Self {
        let site = Self::new(size, true);
        run("ip", &["link", "add", "switch", "type", "bridge"]);
        run("ip", &["addr", "add", "10.77.0.254/24", "dev", "switch"]);
        run("ip", &["link", "set", "switch", "up"]);
        for index in 0..size {
            let (machine, cable) = (format!("m{index}"), format!("cable{index}"));
            let address = format!("{}/24", site.address(index));
            run("ip", &["netns", "add", &machine]);
            let card = ["type", "veth", "peer", "name", "eth0", "netns", &machine];
            run("ip", &[&["link", "add", &cable][..], &card].concat());
            run("ip", &["link", "set", &cable, "master", "switch", "up"]);
            run("ip", &["-n", &machine, "addr", "add", &address, "dev", "eth0"]);
            run("ip", &["-n", &machine, "link", "set", "eth0", "up"]);
            run("ip", &["-n", &machine, "link", "set", "lo", "up"]);
            let rules = "table ip chaos { set cut { type ipv4_addr; }; chain input { type filter \
                         hook input priority 0; ip saddr @cut drop; }; }";
            run("ip", &["netns", "exec", &machine, "nft", rules]);
            let disk = site.disk(index).display().to_string();
            let options = format!("size={disk_bytes}");
            run("mount", &["-t", "tmpfs", "-o", &options, "none", &disk]);
        }
        site
    }

    /// Nodes on loopback.
    pub(crate) fn loopback(size: usize) -> Self {
        Self::new(size, false)
    }

    fn new(size: usize, is_sealed: bool) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for index in 0..size {
            fs::create_dir(folder.path().join(format!("disk{index}"))).expect("a folder of ours");
        }
        let clock = Some(folder.path().join("clock"));
        let number = [fastrand::u8(1..=254), fastrand::u8(1..=254)];
        let site =
            Self { folder, size, is_sealed, number, clock: clock.filter(|_| faketime().is_some()) };
        site.set_clock("+0");
        succeed(quorumor().arg("keygen").arg(site.secret()));
        site
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// The node whose clock can be set, if one can be.
    pub(crate) fn clock_owner(&self) -> Option<usize> {
        self.clock.as_ref().map(|_| self.size - 1)
    }

    fn secret(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    fn disk(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("disk{index}"))
    }

    /// The data directory of a node.
    pub(crate) fn data(&self, index: usize) -> PathBuf {
        self.disk(index).join("data")
    }

    fn address(&self, index: usize) -> Ipv4Addr {
        let last = u8::try_from(index + 1).expect("few machines");
        match self.is_sealed {
            true => Ipv4Addr::new(10, 77, 0, last),
            false => Ipv4Addr::new(127, self.number[0], self.number[1], last),
        }
    }

    /// Where clients reach a node.
    pub(crate) fn resp(&self, index: usize) -> SocketAddr {
        (self.address(index), RESP_PORT).into()
    }

    /// How a node is started here.
    pub(crate) fn launch(&self, index: usize, durability: &str) -> Launch {
        let at = |port| SocketAddr::from((self.address(index), port)).to_string();
        let (listen, resp, http) = (at(PEER_PORT), at(RESP_PORT), at(HTTP_PORT));
        let data = self.data(index).display().to_string();
        let secret = self.secret().display().to_string();
        let mut arguments = vec!["--listen", &listen, "--resp", &resp, "--http", &http];
        arguments.extend(["--data", &data, "--durability", durability, "--secret-file", &secret]);
        arguments.extend(["--interval", INTERVAL, "--protected-mode", "no", "--discovery", "off"]);
        let mut arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        let others = (0..self.size).filter(|other| *other != index);
        arguments.extend(others.map(|other| format!("--peer={}:{PEER_PORT}", self.address(other))));
        let through = match self.is_sealed {
            // Unlike `ip netns exec` it leaves the mounts as they are, so that disks can be changed.
            true => {
                vec!["nsenter".to_owned(), format!("--net=/run/netns/m{index}"), "--".to_owned()]
            }
            false => Vec::new(),
        };
        let mut environment = Vec::new();
        if let (Some(clock), Some(library)) = (&self.clock, faketime())
            && self.clock_owner() == Some(index)
        {
            let mut add = |name: &str, value: String| environment.push((name.to_owned(), value));
            add("LD_PRELOAD", library.display().to_string());
            add("FAKETIME_TIMESTAMP_FILE", clock.display().to_string());
            add("FAKETIME_CACHE_DURATION", "1".to_owned());
            // Only the clock on the wall is set: that is what happens to machines.
            add("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned());
        }
        Launch { name: format!("node-{index}"), through, arguments, environment }
    }

    /// From now on nothing that one sends reaches the other; the other way stays open.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        let element = format!("{{ {} }}", self.address(from));
        self.filter(to, &["add", "element", "ip", "chaos", "cut", &element]);
    }

    /// All links are whole again.
    pub(crate) fn mend_links(&self) {
        (0..self.size)
            .for_each(|index| self.filter(index, &["flush", "set", "ip", "chaos", "cut"]));
    }

    fn filter(&self, index: usize, arguments: &[&str]) {
        run("ip", &[&["netns", "exec", &format!("m{index}"), "nft"][..], arguments].concat());
    }

    /// Fills a disk to the last byte.
    pub(crate) fn fill(&self, index: usize) {
        let mut file = fs::File::options()
            .create(true)
            .append(true)
            .open(self.disk(index).join("ballast"))
            .expect("a file of ours");
        let mut bytes = vec![1; BALLAST_BYTES];
        while !bytes.is_empty() {
            if file.write_all(&bytes).is_err() {
                bytes.truncate(bytes.len() / 2);
            }
        }
    }

    /// Makes room on a disk that was filled.
    pub(crate) fn make_room(&self, index: usize) {
        let removed = fs::remove_file(self.disk(index).join("ballast"));
        removed.expect("a file of ours");
    }

    /// Gives a node a disk that claims to have more room than there is behind it, so that writes fail
    /// late, as they do on worn disks; whether that can be done here.
    pub(crate) fn put_in_failing_disk(&self, index: usize) -> bool {
        let behind = self.behind(index);
        fs::create_dir(&behind).expect("a folder of ours");
        let options = format!("size={BEHIND_BYTES}");
        run("mount", &["-t", "tmpfs", "-o", &options, "none", &behind.display().to_string()]);
        let image = behind.join("image").display().to_string();
        run("truncate", &["-s", &CLAIMED_BYTES.to_string(), &image]);
        let made = finish(Command::new("mkfs.ext4").args(["-q", "-F", &image])).status;
        made.success() && self.mount_image(index)
    }

    /// Puts as much room behind the failing disk as it claims to have.
    pub(crate) fn mend_disk(&self, index: usize) {
        let options = format!("remount,size={}", 2 * CLAIMED_BYTES);
        run("mount", &["-o", &options, &self.behind(index).display().to_string()]);
    }

    /// Takes the mended disk out, has it checked and puts it in again; its node must not be running.
    pub(crate) fn put_in_mended_disk(&self, index: usize) {
        run("umount", &[&self.disk(index).display().to_string()]);
        let image = self.behind(index).join("image");
        let checked = finish(Command::new("e2fsck").args(["-f", "-y"]).arg(image));
        // 1: errors were found and mended.
        assert!(checked.status.code() < Some(2), "{}{}", checked.stdout, checked.stderr);
        assert!(self.mount_image(index), "it could be mounted before");
    }

    fn behind(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("behind{index}"))
    }

    fn mount_image(&self, index: usize) -> bool {
        let image = self.behind(index).join("image");
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", "loop"]).arg(image).arg(self.disk(index));
        finish(&mut mount).status.success()
    }

    /// Lets a disk be read only, or written again; its node must not be running.
    pub(crate) fn set_writable(&self, index: usize, is_writable: bool) {
        let options = if is_writable { "remount,rw" } else { "remount,ro" };
        run("mount", &["-o", options, &self.disk(index).display().to_string()]);
    }

    /// Sets the clock of the node that has one, as far from the true time as libfaketime is told.
    pub(crate) fn set_clock(&self, offset: &str) {
        let Some(clock) = &self.clock else { return };
        let new = clock.with_extension("new");
        fs::write(&new, format!("{offset}\n")).expect("a file of ours");
        fs::rename(&new, clock).expect("a file of ours");
    }
}

/// The library that sets a process' clock, where there is one.
fn faketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    let files = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    files.into_iter().find(|file| file.exists())
}

fn run(program: &str, arguments: &[&str]) {
    succeed(Command::new(program).args(arguments));
}
