"""Images, their subclasses and their splits."""

from subclass_kd.data.samples import Samples, load_samples

__all__ = ["Samples", "load_samples"]
