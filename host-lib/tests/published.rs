//! What the repository publishes beside the code fits the code: the schema of `template.json`, and the templates.

use std::{fs, path::Path};

use corehold_host::template::{Catalog, Finding, Severity, check, json_schema};

/// `COREHOLD_UPDATE=1 cargo test -p corehold-host --test published` writes the file anew.
#[test]
fn the_schema_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/template.schema.json");
    let expected = format!("{}\n", serde_json::to_string_pretty(&json_schema()).unwrap());
    if std::env::var_os("COREHOLD_UPDATE").is_some_and(|value| value == "1") {
        fs::write(&path, &expected).unwrap();
    }
    let published = fs::read_to_string(&path).unwrap_or_default();
    assert!(published == expected, "{} is out of date: run this test with COREHOLD_UPDATE=1", path.display());
}

#[test]
fn the_templates_are_without_fault() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates");
    let listing = Catalog::new([&folder]).list();
    let names: Vec<&str> = listing.templates.iter().map(|template| template.name.as_str()).collect();
    assert_eq!(names, ["node-api", "python-web", "static-site", "vite-react"]);
    assert!(listing.invalid.is_empty(), "{:?}", listing.invalid);
    for template in &listing.templates {
        let faults: Vec<Finding> =
            check(&template.folder).into_iter().filter(|finding| finding.severity != Severity::Note).collect();
        assert_eq!(faults, [], "{}", template.name);
    }
}

/// A lock file that names where packages were fetched from works nowhere else.
#[test]
fn lock_files_name_no_registry() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates/vite-react/package-lock.json");
    assert!(!fs::read_to_string(lock).unwrap().contains("\"resolved\""));
}
