//! The layer table in `src/lib.rs` is true.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

fn layers(lib: &str) -> BTreeMap<String, u32> {
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | "));
    let mut layers = BTreeMap::new();
    for row in rows {
        let Some((layer, modules)) = row.split_once('|') else { continue };
        let Ok(layer) = layer.trim().parse() else { continue };
        for module in modules.split('`').skip(1).step_by(2) {
            layers.insert(module.to_owned(), layer);
        }
    }
    layers
}

#[test]
fn modules_import_only_from_lower_layers() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = fs::read_to_string(src.join("lib.rs")).unwrap();
    let layers = layers(&lib);
    for line in lib.lines() {
        if let Some(module) = line.strip_prefix("pub mod ").and_then(|line| line.strip_suffix(';')) {
            assert!(layers.contains_key(module), "src/lib.rs: `{module}` stands in no layer");
        }
    }
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut imports = 0;
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let module = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        let Some(&own) = layers.get(&module) else { continue };
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for (at, _) in line.match_indices("crate::") {
                let used: String =
                    line[at + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let Some(&layer) = layers.get(&used) else { continue };
                imports += 1;
                assert!(
                    used == module || layer < own,
                    "{}:{}: `{module}` (layer {own}) imports from `{used}` (layer {layer})",
                    file.display(),
                    number + 1
                );
            }
        }
    }
    assert!(imports > 20, "only {imports} imports were found: the test looks in the wrong place");
}
