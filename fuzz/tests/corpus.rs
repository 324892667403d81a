//! Every byte string of the corpus, the crashes of the past among them, given to its parser.

use std::fs;
use std::path::Path;

use fuzz::TARGETS;

#[test]
fn every_parser_keeps_its_promises_on_its_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in TARGETS {
        let mut files = 0;
        for file in fs::read_dir(corpus.join(name)).unwrap_or_else(|why| panic!("corpus of {name}: {why}")) {
            let path = file.unwrap().path();
            println!("{}", path.display());
            target(&fs::read(&path).unwrap());
            files += 1;
        }
        assert!(files >= 5, "the corpus of {name} has only {files} files");
    }
}

#[test]
fn every_corpus_belongs_to_a_parser() {
    for folder in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")).unwrap() {
        let name = folder.unwrap().file_name().into_string().unwrap();
        assert!(fuzz::target(&name).is_some(), "{name} has a corpus and no target");
    }
}
