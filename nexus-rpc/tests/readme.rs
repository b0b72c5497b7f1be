//! The program in the READMEs is `examples/echo.rs`, which this crate compiles.

#[test]
fn the_readmes_show_the_example_as_it_is() {
    let example = include_str!("../examples/echo.rs");
    for (name, text) in [
        ("README.md", include_str!("../../README.md")),
        ("README.zh-CN.md", include_str!("../../README.zh-CN.md")),
    ] {
        assert!(
            text.contains(example),
            "{name} does not contain examples/echo.rs as it stands"
        );
    }
    assert!(example.lines().count() <= 40);
}
