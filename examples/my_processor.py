"""Programs that are to print what is expected: `[processors.mine] command = ["python3", "examples/my_processor.py"]`."""
from evalmill_processor import Command, Executable, ExecutionResult, Invalid, serve


def preprocessor(prediction):
    if "code" not in prediction:
        raise Invalid("code is missing: it is the program that is run")
    if "import socket" in prediction["code"]:
        return ExecutionResult.invalid_result(key="", stdout="uses the network")
    return Executable(
        files={"main.py": prediction["code"]},
        commands=[Command(["python3", "main.py"], timeout=5)],
    )


def postprocessor(prediction, result):
    print("judging", prediction.get("expected"))
    return {**prediction, "passed": result.last_cmd.stdout.strip() == prediction["expected"]}


if __name__ == "__main__":
    serve(preprocessor, postprocessor)
