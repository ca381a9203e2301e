"""Texts and code examples of model cards, which must run without this package."""

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
        is_split_into_words=tasks[task].get("reads_words", False),  # its first token answers a word
        truncation=True,
        max_length=tasks[task]["max_length"],
        padding=True,
        return_tensors="{tensors}",
    )
"""

SPACED = """\
    if tasks[task].get("reads_words", False):  # words have the tokens that they have behind a space
        texts = [[" " + one.lstrip() if one.strip() else one for one in words] for words in texts]
"""

PLAIN_LOGITS = """

@torch.no_grad()
def logits(task, texts, pairs=None):
    inputs = read(task, texts, pairs)
    states = encoder(**inputs).last_hidden_state
    if not tasks[task].get("per_token"):  # the mean over the tokens, without padding
        mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
        states = (states * mask).sum(1) / mask.sum(1)
    weight, bias = heads[task + ".output.weight"], heads[task + ".output.bias"]
    return torch.nn.functional.linear(states, weight, bias)


"""

#: What examples read: a text, and the second of a pair.
GIVEN = ("Here is a text.", "Here is another one.")

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
