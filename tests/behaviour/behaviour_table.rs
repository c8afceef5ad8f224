//! Every rule of `docs/behaviour.md` names at least one test, and all of them exist.

use std::fs;
use std::path::Path;

#[test]
fn the_table_of_rules_names_existing_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("docs/behaviour.md")).unwrap();
    let mut rules = 0;
    for row in table.lines().filter(|line| line.starts_with("| ")) {
        let Some(number) = row
            .split('|')
            .nth(1)
            .and_then(|it| it.trim().parse::<usize>().ok())
        else {
            continue;
        };
        rules += 1;
        assert_eq!(number, rules, "{row}");
        let tests: Vec<_> = row.split('`').filter(|it| it.contains("::")).collect();
        assert!(!tests.is_empty(), "rule {number} has no test");
        for test in tests {
            let (place, name) = test.rsplit_once("::").unwrap();
            let file = if place.starts_with("src/") || place.starts_with("tests/") {
                root.join(place)
            } else {
                root.join(format!("tests/behaviour/{place}.rs"))
            };
            let source = fs::read_to_string(&file).unwrap_or_else(|_| panic!("no file for {test}"));
            let exists = source.match_indices(&format!("fn {name}(")).any(|(at, _)| {
                // `#[test]` or `#[tokio::test]` is in the same paragraph.
                let above = source[..at].rsplit("\n\n").next().unwrap_or_default();
                above.contains("test")
            });
            assert!(exists, "no test {test}");
        }
    }
    assert_eq!(rules, 60);
}
