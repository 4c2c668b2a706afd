//! Every example runs, and prints what `examples/README.md` says that it prints.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

/// The examples with their output, from the sections of the page.
fn documented() -> Vec<(String, String)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/README.md");
    let page = fs::read_to_string(page).expect("the page is there");
    let sections = page.split("\n## ").skip(1);
    let parsed = sections.map(|section| {
        let (name, rest) = section.split_once('\n').expect("a name");
        let (_, rest) = rest.split_once("```text\n").expect("an output");
        let (output, _) = rest.split_once("```").expect("its end");
        (name.trim().to_owned(), output.to_owned())
    });
    parsed.collect()
}

#[test]
fn examples_print_what_their_page_says() {
    let documented = documented();
    let folder = Path::new(env!("CARGO_BIN_EXE_quorumor")).parent().expect("a folder");
    for (name, output) in &documented {
        let finished = common::finish(&mut Command::new(folder.join("examples").join(name)));
        assert!(finished.status.success(), "{name}: {}", finished.stderr);
        assert_eq!(&finished.stdout, output, "{name}");
    }
}

#[test]
fn every_example_stands_on_the_page() {
    let mut names: Vec<_> = documented().into_iter().map(|(name, _)| name).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = fs::read_dir(folder).expect("the folder is there");
    let files = files.map(|file| file.expect("an entry").path());
    let sources = files.filter(|path| path.extension().is_some_and(|ending| ending == "rs"));
    let mut sources: Vec<_> = sources
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    sources.sort();
    assert_eq!(names, sources);
}
