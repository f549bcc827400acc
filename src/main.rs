//! The `evalmill` program.
fn main() {
    evalmill::init();
}
