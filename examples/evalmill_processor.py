"""A processor of evalmill's in Python: `serve(preprocessor, postprocessor)`.

    from evalmill_processor import Command, Executable, serve

    def preprocessor(prediction):
        return Executable({"main.py": prediction["code"]}, [Command(["python3", "main.py"])])

    def postprocessor(prediction, result):
        return {"passed": result.last_cmd.stdout == prediction["expected"]}

    if __name__ == "__main__":
        serve(preprocessor, postprocessor)

`preprocessor(prediction)` returns an `Executable`, a list of them, an `ExecutionResult` (nothing is run; the verdict
is `filtered`), or raises `Invalid("why")`. `postprocessor(prediction, result)` returns a dict, which goes into the result message's
`output`; its `passed` says whether the prediction passed, and where it does not, no command with an error does. Where the preprocessor
returned a list, `result` is a list. Without a postprocessor the output is `result.to_dict()`.

What either prints goes to evalmill's log: standard output belongs to the protocol. Any exception ends as `infra_error`,
with its text, for this prediction alone. Needs Python 3.8, and nothing else.
"""
import base64
import json
import os
import sys
import traceback
from dataclasses import asdict, dataclass, field, fields
from typing import Dict, List, Optional, Union


class Invalid(Exception):
    """The prediction cannot be used: the verdict is `invalid`."""


@dataclass(frozen=True)
class Command:
    """One process: `timeout` in seconds, `None` is the configured default."""

    command: List[str]
    timeout: Optional[float] = None
    num_times: int = 1
    stdin: List[str] = field(default_factory=list)


@dataclass(frozen=True)
class Executable:
    """Files (text or bytes, by relative path) and commands. The rules are data: see docs/messages.md."""

    files: Dict[str, Union[str, bytes]]
    commands: List[Command]
    tracked_files: List[str] = field(default_factory=list)
    early_stop: Optional[dict] = None
    stdout_postprocessor: Union[str, dict, None] = None


@dataclass(frozen=True)
class CommandResult:
    """What became of one command; beside these fields `extra` holds all others of the message."""

    return_code: Optional[int]
    runtime: float
    stdout: str
    stderr: str
    timed_out: bool
    had_unexpected_error: bool = False
    extra: dict = field(default_factory=dict, compare=False)

    @property
    def had_error(self):
        return self.extra.get("had_error", self.timed_out or self.had_unexpected_error or self.return_code != 0)


@dataclass(frozen=True)
class ExecutionResult:
    """What became of one executable."""

    key: str
    command_results: List[CommandResult]
    elapsed: float
    cwd: str
    tracked_files: Dict[str, Optional[str]]
    expected_num_commands: int
    writing_time: float = -1
    cleanup_time: float = -1
    preprocess_time: float = -1

    @property
    def last_cmd(self):
        return self.command_results[-1]

    @property
    def timed_out(self):
        return bool(self.command_results) and self.last_cmd.timed_out

    @property
    def had_error(self):
        return not self.command_results or self.last_cmd.had_error

    def all_had_return_code(self, return_code):
        return all(result.return_code == return_code for result in self.command_results)

    def __getitem__(self, index):
        return self.command_results[index]

    def __len__(self):
        return len(self.command_results)

    def to_dict(self, include_command_results=False):
        last = _known(CommandResult, asdict(self.last_cmd)) if self.command_results else {}
        last.pop("extra", None)
        own = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "command_results"}
        whole = {**own, **last, "had_error": self.had_error, "timed_out": self.timed_out}
        if include_command_results:
            whole["command_results"] = [
                {name: value for name, value in asdict(result).items() if name != "extra"}
                for result in self.command_results
            ]
        return whole

    @classmethod
    def invalid_result(
        cls, key, num_commands=1, runtime=10.0, return_code=1, stdout="SyntaxError", stderr="Invalid", elapsed=10.0
    ):
        """For a prediction that is not worth running: return it from the preprocessor."""
        result = CommandResult(return_code, runtime, stdout, stderr, False)
        return cls(key, [result] * num_commands, elapsed, "", {}, num_commands)


def serve(preprocessor=None, postprocessor=None):
    """Answers evalmill until it closes standard input."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    for line in requests:
        items = [_answer(item, preprocessor, postprocessor) for item in json.loads(line)["items"]]
        answers.write(json.dumps({"items": items}).encode() + b"\n")
        answers.flush()


def _answer(item, preprocessor, postprocessor):
    try:
        if "preprocess" in item:
            answer = _preprocess(preprocessor, item["preprocess"]["prediction"])
        else:
            answer = _postprocess(postprocessor, **item["postprocess"])
        json.dumps(answer, allow_nan=False)
        return answer
    except Invalid as error:
        return {"invalid" if "preprocess" in item else "error": str(error)}
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


def _preprocess(preprocessor, prediction):
    if preprocessor is None:
        raise TypeError("this program has no preprocessor: set processors.NAME.preprocessor")
    prepared = preprocessor(prediction)
    if isinstance(prepared, ExecutionResult):
        return {"filtered": {"detail": prepared.last_cmd.stdout if len(prepared) else None, "output": prepared.to_dict()}}
    if isinstance(prepared, (list, tuple)):
        return {"run": [_executable(one) for one in prepared]}
    return {"run": _executable(prepared)}


def _executable(executable):
    if not isinstance(executable, Executable):
        raise TypeError(f"the preprocessor returned {type(executable).__name__}, not an Executable, a list of them or an ExecutionResult")
    message = {name: value for name, value in asdict(executable).items() if value is not None}
    message["files"] = {
        name: {"base64": base64.b64encode(content).decode()} if isinstance(content, bytes) else content
        for name, content in executable.files.items()
    }
    for command in message["commands"]:
        if command["timeout"] is None:
            del command["timeout"]
    return message


def _postprocess(postprocessor, prediction, results):
    results = [_result(one) for one in results]
    result = results if len(results) > 1 else results[0]
    if postprocessor is None:
        output = [one.to_dict() for one in results] if len(results) > 1 else result.to_dict()
        output = {"results": output} if isinstance(output, list) else output
    else:
        output = postprocessor(prediction, result)
    if not isinstance(output, dict):
        raise TypeError(f"the postprocessor returned {type(output).__name__}, not a dict")
    passed = output.get("passed")
    if not isinstance(passed, bool):
        passed = not any(one.had_error for one in results)
    # What is the prediction's own comes back with it anyway.
    nothing = object()
    output = {name: value for name, value in output.items() if value is not prediction.get(name, nothing)}
    return {"judged": {"passed": passed, "detail": output.get("detail"), "output": output}}


def _result(message):
    commands = [CommandResult(**_known(CommandResult, one), extra=one) for one in message["command_results"]]
    return ExecutionResult(**{**_known(ExecutionResult, message), "command_results": commands})


def _known(kind, message):
    names = {one.name for one in fields(kind)} - {"extra"}
    return {name: value for name, value in message.items() if name in names}
