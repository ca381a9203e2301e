"""What model cards say, and the code in them: it must run without this package."""

CUT = """\
Some layers are smaller than in the dense architecture. `modeling_multiprune.py` in this folder
builds them, with `torch` and `transformers` and nothing else; `trust_remote_code=True` says that it
may run."""

DENSE = "All layers have their dense shapes; plain `transformers` loads the {kind}."

PLAIN = """\
```python
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

folder = Path(".")  # this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
encoder = AutoModel.from_pretrained(folder{options}).eval()
heads = load_file(folder / "heads.safetensors")
tasks = json.loads((folder / "heads.json").read_text())
{logits}{example}```
"""

READ = """

def read(task, texts, pairs=None):
{spaced}    return tokenizer(
        texts,
        pairs,
        is_split_into_words=tasks[task]["kind"] == "tags",  # lists of words; first tokens answer
        truncation=True,
        max_length=tasks[task]["max_length"],
        padding=True,
        return_tensors="{tensors}",
    )
"""

SPACED = """\
    if tasks[task]["kind"] == "tags":  # words have the tokens that they have behind a space
        texts = [[" " + one.lstrip() if one.strip() else one for one in words] for words in texts]
"""

PLAIN_LOGITS = """

@torch.no_grad()
def logits(task, texts, pairs=None):
    inputs = read(task, texts, pairs)
    states = encoder(**inputs).last_hidden_state
    if tasks[task]["kind"] not in ("tags", "span"):  # the mean over the tokens, without padding
        mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
        states = (states * mask).sum(1) / mask.sum(1)
    weight, bias = heads[task + ".output.weight"], heads[task + ".output.bias"]
    return torch.nn.functional.linear(states, weight, bias)


"""

#: What examples read: a text, and the second of a pair.
GIVEN = ("Here is a text.", "Here is another one.")

#: By kind, how answers are read from the logits of one text.
EXAMPLES = {
    "classes": """\
scores = logits("{task}", {given})[0]  # of one text
print(tasks["{task}"]["labels"][int(scores.argmax())])
""",
    "sets": """\
scores = logits("{task}", {given})[0]  # of one text
print([one for one, score in zip(tasks["{task}"]["labels"], scores) if score > 0])
""",
    "number": """\
score = float(logits("{task}", {given})[0, 0])  # of one text
low, high = tasks["{task}"]["bounds"]
print((score * (high - low) + low + high) / 2)
""",
    "tags": """\
words = ["A", "text", "to", "try"]
best, ids = logits("{task}", [words])[0].argmax(-1), read("{task}", [words]).word_ids(0)
for number, word in enumerate(words):
    print(word, tasks["{task}"]["labels"][int(best[ids.index(number)])])
""",
    "span": """\
question, context = "What is read?", "A context that has the answer in it."
scores = logits("{task}", [question], [context])[0]
inputs = read("{task}", [question], [context])
inside = [place for place, part in enumerate(inputs.sequence_ids(0)) if part == 1]
spans = [(first, last) for first in inside for last in inside if first <= last]
first, last = max(spans, key=lambda span: scores[span[0], 0] + scores[span[1], 1])
print(context[inputs.token_to_chars(0, first).start : inputs.token_to_chars(0, last).end])
""",
}

PLAIN_MASKED = """\
Of {tasks}, the head is on the encoder's own embeddings of words:

```python
@torch.no_grad()
def masked_logits(task, texts):  # of all tokens of the vocabulary, at each token
    options = {{"truncation": True, "max_length": {max_length}, "padding": True}}
    inputs = tokenizer(texts, return_tensors="pt", **options)
    of = {{key.removeprefix(task + "."): value for key, value in heads.items()}}
    states = encoder(**inputs).last_hidden_state
    states = torch.nn.functional.linear(states, of["dense.weight"], of["dense.bias"])
    states = torch.nn.functional.gelu(states)
    size = (states.shape[-1],)
    states = torch.nn.functional.layer_norm(states, size, of["norm.weight"], of["norm.bias"], 1e-12)
    return torch.nn.functional.linear(states, encoder.get_input_embeddings().weight, of["bias"])
```
"""

PLAIN_CLASSIFIER = """\
```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "."  # this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder{options}).eval()


@torch.no_grad()
def logits(texts, pairs=None):
    inputs = tokenizer(
        texts, pairs, truncation=True, max_length={max_length}, padding=True, return_tensors="pt"
    )
    return model(**inputs).logits


scores = logits({given})[0]  # of one text
print(model.config.id2label[int(scores.argmax())])
```
"""

PLAIN_TEXT_TO_TEXT = """\
```python
import json
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

folder = Path(".")  # this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSeq2SeqLM.from_pretrained(folder{options}).eval()
tasks = json.loads((folder / "heads.json").read_text())


@torch.no_grad()
def logits(task, texts, pairs=None):  # log-probabilities of each label's words
    columns, template = tasks[task]["text"], tasks[task]["template"]
    rows = zip(texts) if pairs is None else zip(texts, pairs)
    filled = [template.format_map(dict(zip(columns, row))) for row in rows]
    inputs = tokenizer(
        filled, truncation=True, max_length={max_length}, padding=True, return_tensors="pt"
    )
    found = []
    for words in tasks[task]["words"]:
        target = tokenizer(words, return_tensors="pt").input_ids.repeat(len(filled), 1)
        scores = model(**inputs, labels=target).logits.log_softmax(-1)
        found.append(scores.gather(-1, target[:, :, None]).sum((1, 2)))
    return torch.stack(found, 1)


{example}```
"""

BITMASK = """\
Zeros are not stored: `multiprune.load` restores the dense tensors bit for bit, plain
`transformers` does not know the format.
"""

PACKED = """\
Several models share one set of weights: a mask says which of them a task has, and only its own head
is its own besides. `multiprune.load` gives the encoder the weights of the task that is asked for;
plain `transformers` does not know the format.
"""

ONNX = """\
`onnxruntime` runs the model: inputs are what the tokenizer gives, and an output has the name of its
task, as in `heads.json`, and its logits.

```python
import json
from pathlib import Path

from onnxruntime import InferenceSession
from transformers import AutoTokenizer

folder = Path(".")  # this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
session = InferenceSession(folder / "model.onnx")
tasks = json.loads((folder / "heads.json").read_text())
{read}

def logits(task, texts, pairs=None):
    return session.run([task], dict(read(task, texts, pairs)))[0]


{example}```
"""

SIZES = """\
Density is what a task has of the weights of linear layers.
"""

OURS = """\
With multiprune, which runs no code from this folder:

```python
import multiprune

model = multiprune.load(".")
print(model.predict("{task}", {given}))
```

`predict_all` answers all tasks that read the same texts, `logits` gives the numbers behind answers.
"""
