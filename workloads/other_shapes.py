"""Shapes of published models that are no decoders: a vision transformer and a state-space model.

They are matrix sizes only. No command runs them: of a scan or of an encoder's attention no timing is claimed.
"""

from __future__ import annotations

import dataclasses

from bitwright.arch.errors import ConfigError
from bitwright.workloads.shape_parts import Matmul


def _check(shape: VisionShape | ScanShape) -> None:
    for field in dataclasses.fields(shape):
        value = getattr(shape, field.name)
        if field.name not in ("name", "source", "tied_embeddings") and (type(value) is not int or value < 1):
            raise ConfigError(f"{shape.name}.{field.name} = {value!r}: must be a whole number of at least 1")


@dataclasses.dataclass(frozen=True)
class VisionShape:
    """A vision transformer: a convolution over patches, encoder layers, a class head.

    Fields
        layers, hidden, ffn, heads : int   As of a decoder; LayerNorm and biases everywhere.
        image, patch, channels : int   Pixels of the image's and a patch's side, colours.
        classes : int   Rows of the head.
    Source: Dosovitskiy et al., ICLR 2021 (arXiv 2010.11929), section 3.1.
    """

    name: str
    layers: int
    hidden: int
    ffn: int
    heads: int
    image: int
    patch: int
    channels: int
    classes: int
    source: str

    def __post_init__(self) -> None:
        _check(self)

    @property
    def tokens(self) -> int:
        """Patches of an image, and the class token."""
        return (self.image // self.patch) ** 2 + 1

    def matmuls(self) -> tuple[Matmul, ...]:
        """Every weight matrix; the patches' convolution as the product that it is."""
        layer = [(name, self.hidden, self.hidden) for name in ("q", "k", "v", "o")]
        layer += [("up", self.ffn, self.hidden), ("down", self.hidden, self.ffn)]
        return (
            Matmul("patches", self.hidden, self.channels * self.patch**2, 1),
            *(Matmul(name, n, k, self.layers) for name, n, k in layer),
            Matmul("head", self.classes, self.hidden, 1),
        )

    @property
    def parameters(self) -> int:
        """Matrices, their biases, norms, class token and learned positions."""
        matrices = sum(matmul.parameters + matmul.n * matmul.count for matmul in self.matmuls())
        return matrices + 2 * self.hidden * (2 * self.layers + 1) + self.hidden * (self.tokens + 1)


@dataclasses.dataclass(frozen=True)
class ScanShape:
    """A Mamba model: selective state spaces instead of attention and feed-forward.

    Fields
        layers, hidden, vocab : int   As of a decoder; RMSNorm.
        inner, state, conv, dt_rank : int   Width inside a block, numbers of state a channel, taps of the short
            convolution, width that the step sizes are squeezed through.
    Source: Gu and Dao, arXiv 2312.00752, section 3.4.
    """

    name: str
    layers: int
    hidden: int
    inner: int
    state: int
    conv: int
    dt_rank: int
    vocab: int
    tied_embeddings: bool
    source: str

    def __post_init__(self) -> None:
        _check(self)

    def matmuls(self) -> tuple[Matmul, ...]:
        """Every weight matrix that multiplies activations: the scan and the short convolution are not products."""
        layer = [
            ("in", 2 * self.inner, self.hidden),
            ("x", self.dt_rank + 2 * self.state, self.inner),
            ("dt", self.inner, self.dt_rank),
            ("out", self.hidden, self.inner),
        ]
        return (*(Matmul(name, n, k, self.layers) for name, n, k in layer), Matmul("head", self.vocab, self.hidden, 1))

    @property
    def parameters(self) -> int:
        """Matrices, embedding, convolution with its bias, step bias, A, D, norms."""
        matrices = sum(matmul.parameters for matmul in self.matmuls())
        matrices += 0 if self.tied_embeddings else self.vocab * self.hidden
        block = self.inner * (self.conv + 1) + self.inner + self.inner * (self.state + 1) + self.hidden
        return matrices + self.layers * block + self.hidden
