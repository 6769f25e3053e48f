"""The README's examples run."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_examples_run(capsys):
    """They share one namespace, as for a reader who types them one after the other."""
    examples = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert len(examples) == 3
    namespace = {}
    for number, example in enumerate(examples, 1):
        exec(compile(example, f"README.md, example {number}", "exec"), namespace)
    assert "[('decoder', 6), ('decoder', 12), ('encoder', 8), ('encoder', 16)]" in capsys.readouterr().out
    assert type(namespace["first_gradients"][0]).__name__ == "IndexedSlices"
    assert all(gradient is not None for gradient in namespace["last_gradients"])
