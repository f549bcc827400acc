//! Python source: what can be said of it here, and what only an interpreter knows, which is asked in a worker.
//!
//! ```text
//! cargo run --example code_trees
//! ```

use std::error::Error;

use evalmill::api::steps::ExecutionConfig;
use evalmill::api::{Engine, EngineOptions};
use evalmill::code_trees::{
    Validity, ask_is_valid_python, convert_call_to_assert, is_valid_python, normalize,
};
use evalmill::pipeline::Framing;
use evalmill::processors::Registry;

fn main() -> Result<(), Box<dyn Error>> {
    evalmill::init();
    println!("{}", convert_call_to_assert("f(1)  # a call", "2", false)?);
    tokio::runtime::Runtime::new()?.block_on(async {
        let settings = ExecutionConfig::new(1).settings()?;
        let options = EngineOptions::new(Framing::Message);
        let engine = Engine::start_with(&settings, options, Registry::default()).await?;
        let oracle = engine.pipeline();
        let deep = format!("{}1{}", "(".repeat(60), ")".repeat(60));
        let codes = ["x = 1", "x = ", "def f(:", "f() = 1", "import os; os._exit(0)", "x = '\0'", &deep];
        for code in codes {
            let shown: String = code.chars().take(24).collect();
            let known = match is_valid_python(code) {
                Validity::Valid => "valid",
                Validity::Invalid(_) => "invalid",
                Validity::Unknown(_) => "unknown",
            };
            println!("{shown:?}: {known}, the interpreter: {}", ask_is_valid_python(code, &*oracle).await?);
        }
        println!("{:?}", normalize("x = (1 +\\\n 2) ; y='a'", &*oracle).await?);
        println!("{:?}", normalize("x =", &*oracle).await?);
        engine.shutdown().await;
        Ok(())
    })
}
