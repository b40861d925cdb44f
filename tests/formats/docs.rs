//! The documents under `docs/` and the comments that cite them agree.
//!
//! Every citation of a section of `docs/formats.md` in `src/`, `tests/` and `fuzz/` names a section that exists, and no
//! comment cites a document under an old name. Reads files only; knows nothing of the program.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The document whose sections are cited.
const DOCUMENT: &str = "docs/formats.md";

/// Files whose comments cite documents.
const EXTENSIONS: [&str; 3] = ["rs", "md", "proto"];

/// What joins the sections of one citation.
const JOINTS: [&str; 6] = [", and ", ", ", " and ", " to ", "; ", " or "];

#[test]
fn every_cited_section_exists() {
    let headings = headings(&fs::read_to_string(root().join(DOCUMENT)).unwrap());
    let mut cited = 0;
    for (path, text) in sources() {
        for section in citations(&text) {
            assert!(headings.contains(&section), "{}: {DOCUMENT} has no section {section}", path.display());
            cited += 1;
        }
    }
    assert!(cited > 100, "expected more than 100 citations of {DOCUMENT}, found {cited}");
}

/// A sentence ends at a full stop, a colon or a semicolon. Code counts as one word, and link targets do not count.
#[test]
fn sentences_have_at_most_25_words() {
    // The others are made from the program.
    const MADE: [&str; 2] = ["cli.md", "codes.md"];
    let pages = [root().to_path_buf(), root().join("docs")].map(|dir| fs::read_dir(dir).unwrap());
    let mut long = Vec::new();
    let mut read = 0;
    for path in pages.into_iter().flatten().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.ends_with(".md") || MADE.contains(&name) {
            continue;
        }
        for sentence in sentences(&fs::read_to_string(&path).unwrap()) {
            let words = sentence.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).count();
            // A line of links separated by dots is no sentence.
            if words > 25 && !sentence.contains(" · ") {
                long.push(format!("{name}: {words} words: {sentence}"));
            }
            read += 1;
        }
    }
    assert!(read > 1000, "{read} sentences found");
    assert!(long.is_empty(), "{long:#?}");
}

/// The sentences of a page, without code blocks and headings; those of a table cell count by themselves.
fn sentences(page: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut in_code = false;
    for line in page.lines().map(str::trim) {
        let is_fence = line.starts_with("```");
        in_code ^= is_fence;
        if is_fence || in_code || line.is_empty() || line.starts_with('#') {
            parts.push(String::new());
        } else if let Some(row) = line.strip_prefix('|') {
            parts.extend(row.split('|').map(str::to_string));
            parts.push(String::new());
        } else {
            if line.starts_with("- ") || line.split_once(". ").is_some_and(|(number, _)| number.parse::<u32>().is_ok())
            {
                parts.push(String::new());
            }
            let part = parts.last_mut().unwrap();
            part.push_str(line);
            part.push(' ');
        }
    }
    let mut found = Vec::new();
    for part in parts {
        let without_code: Vec<&str> = part.split('`').collect();
        let mut text: String =
            without_code.iter().enumerate().map(|(at, piece)| if at % 2 == 1 { "`code`" } else { *piece }).collect();
        while let Some((begin, end)) = text.find("](").and_then(|begin| Some((begin, begin + text[begin..].find(')')?)))
        {
            text.replace_range(begin..=end, "]");
        }
        for end in [". ", ": ", "; ", "? "] {
            text = text.replace(end, &format!("{}\n", end.trim_end()));
        }
        found.extend(text.lines().map(str::to_string).filter(|sentence| !sentence.trim().is_empty()));
    }
    found
}

#[test]
fn no_document_is_cited_by_an_old_name() {
    // In two parts, because this file is read as well.
    let old = [concat!("FORM", "ATS"), concat!("CLI", ".md")];
    for (path, text) in sources() {
        for name in old {
            assert!(!text.contains(name), "{}: cites {name}", path.display());
        }
    }
}

#[test]
fn sections_are_read_from_headings_and_citations() {
    let found = headings("# Title\n## 4 Log\n### 4.10 Sizes\n## Appendix A. Vectors\n```\n## 5 No heading\n```\n");
    assert_eq!(found, sections(&["4", "4.10", "appendix A"]));
    // The name is put in later, so that these are no citations.
    let text = "//! See (@ 4.1, 4.2 and 4.7): x.\n    /// @ 3.2, 4.5; 5\n    /// and 6.11. @ appendix A, vector 2\n// @ 8.4: up \
                to 2, @, conventions; @ 9 and the keys; @\n// 13.3, @";
    let found: BTreeSet<String> = citations(&text.replace('@', DOCUMENT)).into_iter().collect();
    assert_eq!(found, sections(&["4.1", "4.2", "4.7", "3.2", "4.5", "5", "6.11", "appendix A", "8.4", "9", "13.3"]));
}

fn sections(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_string()).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The numbers of all headings: `4`, `4.9`, `appendix A`.
fn headings(document: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut in_code = false;
    for line in document.lines() {
        in_code ^= line.trim_start().starts_with("```");
        if in_code || !line.starts_with("##") {
            continue;
        }
        let title = line.trim_start_matches('#').trim_start().replace("Appendix ", "appendix ");
        found.extend(section(&title).map(str::to_string));
    }
    found
}

/// All sections that a file cites.
fn citations(text: &str) -> Vec<String> {
    // A citation can go on in the next line of a comment.
    let lines = text.lines().map(|line| line.trim_start().trim_start_matches(['/', '!']).trim());
    let text = lines.collect::<Vec<&str>>().join(" ");
    let mut found = Vec::new();
    for (at, name) in text.match_indices(DOCUMENT) {
        let mut rest = text[at + name.len()..].strip_prefix(' ');
        while let Some(section) = rest.and_then(section) {
            found.push(section.to_string());
            let after = rest.and_then(|rest| rest.strip_prefix(section)).unwrap_or_default();
            rest = JOINTS.into_iter().find_map(|joint| after.strip_prefix(joint));
        }
    }
    found
}

/// The section that a text begins with.
fn section(text: &str) -> Option<&str> {
    if text.starts_with("appendix ") {
        return text.get(.."appendix A".len());
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    Some(text[..end].trim_end_matches('.')).filter(|number| !number.is_empty())
}

/// The files that can cite, and their text.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = ["src", "tests", "fuzz"].iter().map(|name| root().join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            // What a build or a fuzzer leaves is not in the repository.
            let built = ["target", "corpus", "artifacts", "cache", ".cache"].iter().any(|name| path.ends_with(name));
            if kind.is_dir() && !built {
                folders.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|end| EXTENSIONS.iter().any(|known| end == *known))
            {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}
