"""Bytes, for people."""


def size(count: int, decimals: int = 1) -> str:
    """In gigabytes with so many decimals, or in megabytes with one."""
    return f"{count / 1e9:.{decimals}f} GB" if count >= 1e9 else megabytes(count)


def megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
