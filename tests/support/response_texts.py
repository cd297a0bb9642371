"""A response in every format, as its models write it."""

THOUGHT, SAID = "3 pens at 2 each: 3 * 2 = 6", "They cost **6**."
WRITES = {
    "study": f"<think> {THOUGHT} </think> <answer> {SAID} </answer>",
    "think": f"<think>\n{THOUGHT}\n</think>\n\n{SAID}",
    "thinking": f"<thinking>{THOUGHT}</thinking>\n{SAID}",
    "thought": f"<thought>\n{THOUGHT}\n</thought>\n\n{SAID}",
    "mistral": f"[THINK]{THOUGHT}[/THINK]{SAID}",
    "seed": f"<seed:think>{THOUGHT}</seed:think>{SAID}",
    "minimax": f"<mm:think>{THOUGHT}</mm:think>{SAID}",
    "k2": f"<ifm|think>{THOUGHT}</ifm|think>{SAID}",
    "kimi": f"◁think▷{THOUGHT}◁/think▷{SAID}",
    "kimi3": f"<|open|>think<|sep|>{THOUGHT}<|close|>think<|sep|><|open|>response<|sep|>{SAID}<|close|>response<|sep|>",
    "cohere": f"<|START_THINKING|>{THOUGHT}<|END_THINKING|><|START_RESPONSE|>{SAID}<|END_RESPONSE|>",
    "gemma": f"<|channel>thought\n{THOUGHT}\n<channel|>{SAID}",
    "harmony": f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>{SAID}",
    "solar": f"<|think|>{THOUGHT}<|end|><|begin|>assistant<|content|>{SAID}<|end|>",
    "muse": f" to=self<|message|>{THOUGHT}<|eom|><|start|>assistant to=user<|message|>{SAID}<|eot|>",
    "apertus": f"<|inner_prefix|>{THOUGHT}<|inner_suffix|>{SAID}",
    "granite": f"Here is my thought process:\n{THOUGHT}\nHere is my response:\n{SAID}",
    "apriel": f"Here are my reasoning steps:\n{THOUGHT}\n[BEGIN FINAL RESPONSE]\n{SAID}\n[END FINAL RESPONSE]",
    "solution": f"<|begin_of_thought|>{THOUGHT}<|end_of_thought|>\n\n<|begin_of_solution|>{SAID}<|end_of_solution|>",
    "s1": f"<|im_start|>think\n{THOUGHT}\n<|im_start|>answer\n{SAID}",
}
