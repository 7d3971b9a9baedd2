"""N:M weight sparsity: of every M consecutive weights of a row only N are stored, each with its place."""

from __future__ import annotations

from dataclasses import dataclass

from bitwright.arch.errors import ConfigError, shown


@dataclass(frozen=True)
class Sparsity:
    """`kept_of` weights of every `block` consecutive ones along the reduction (2:4 is kept_of 2, block 4).

    A scale's group of g weights holds g * N / M stored ones; a format with a block of its own fills it with stored
    ones. An index is ceil(log2(M)) bits a stored weight. Raises ConfigError for sizes that make no sense.
    Source: Mishra et al., arXiv 2104.08378, section 3.1 (2:4, a 2-bit index a stored value).
    """

    kept_of: int
    block: int

    def __post_init__(self) -> None:
        for name in ("kept_of", "block"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigError(f"sparsity.{name} = {shown(value)}: must be a whole number of at least 1")
        if self.kept_of >= self.block:
            raise ConfigError(f"sparsity = {self.kept_of}:{self.block}: must keep fewer than {self.block}")

    @property
    def index_bits(self) -> int:
        """Bits that say where in its block one stored weight was."""
        return (self.block - 1).bit_length()

    def kept(self, k: int) -> int:
        """Weights stored of k consecutive ones; a short last block keeps at most `kept_of`."""
        full, rest = divmod(k, self.block)
        return full * self.kept_of + min(rest, self.kept_of)

    def kept_group(self, group: int | None) -> int | None:
        """Stored weights that share a scale. Raises ConfigError for a group that cuts a block."""
        if group is None:
            return None
        if group % self.block:
            raise ConfigError(
                f"group = {group}: must be a multiple of {self.block} with {self.kept_of}:{self.block} sparsity"
            )
        return group * self.kept_of // self.block


def parse(text: str) -> Sparsity:
    """ "2:4" as Sparsity(2, 4). Raises ConfigError for anything else."""
    try:
        kept, block = (int(part) for part in text.split(":"))
    except ValueError:
        raise ConfigError(f"sparsity = {shown(text)}: must be N:M such as 2:4") from None
    return Sparsity(kept, block)
