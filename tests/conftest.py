"""One thread: the tensors of the tests are small, and results must not depend on the machine's cores."""

import sys
from pathlib import Path

import hypothesis
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "resume")]
torch.set_num_threads(1)

# The first call of anything can be slow on a busy machine; that is no failure.
hypothesis.settings.register_profile("esper", deadline=None)
hypothesis.settings.load_profile("esper")
