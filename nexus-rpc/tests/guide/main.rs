//! The guide's code is what is compiled and run here, and the same in both languages.

mod snippets;

const ENGLISH: &str = include_str!("../../docs/guide.md");
const CHINESE: &str = include_str!("../../docs/guide.zh-CN.md");

/// The code blocks of a text: language and lines, without indentation.
fn blocks(text: &'static str) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let code = lines.by_ref().take_while(|line| !line.starts_with("```"));
            blocks.push((language, code.map(str::trim).collect()));
        }
    }
    blocks
}

#[test]
fn every_block_of_code_stands_in_a_file_that_is_compiled() {
    for (language, code) in blocks(ENGLISH) {
        let source = match language {
            "rust" => concat!(include_str!("snippets.rs"), include_str!("../../build.rs")),
            "proto" => include_str!("../../examples/proto/shop.proto"),
            "toml" => include_str!("../../../README.md"),
            // Commands, and pictures.
            "sh" | "text" => continue,
            other => panic!("a block in {other:?}"),
        };
        let source: Vec<&str> = source.lines().map(str::trim).collect();
        let stands_there = source.windows(code.len()).any(|lines| lines == code);
        assert!(stands_there, "not compiled:\n{}", code.join("\n"));
    }
}

#[test]
fn the_guide_has_the_same_code_in_both_languages() {
    let (english, chinese) = (blocks(ENGLISH), blocks(CHINESE));
    for (ours, theirs) in english.iter().zip(&chinese) {
        if ours.0 != "text" {
            assert_eq!(ours, theirs);
        }
    }
    assert_eq!(english.len(), chinese.len());
    let sections = |text: &'static str| text.lines().filter(|l| l.starts_with("## ")).count();
    assert_eq!(sections(ENGLISH), sections(CHINESE));
}
