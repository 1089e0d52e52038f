"""The errors that a user of this package can meet.

Every message says which file (and member and offset) is meant, what was expected, what was
found, and what to do about it.
"""


class ImagenetFamilyError(Exception):
    """Base class of every error that is about the user's input or machine."""


class MissingFileError(ImagenetFamilyError, FileNotFoundError):
    """A file that a dataset is built from is not where it is looked for."""


class ArchiveError(ImagenetFamilyError):
    """A tar archive is damaged, is not the one that is wanted, or changed while in use."""


class ImageError(ImagenetFamilyError):
    """A member of an archive is not an image that can be used."""


class LabelError(ImagenetFamilyError):
    """A list of labels is damaged or does not fit the images."""


class DuplicateKeyError(ImagenetFamilyError):
    """Two examples of a split have the same key."""


class DownloadError(ImagenetFamilyError):
    """A download failed, or what came is not what was expected."""


class BuildError(ImagenetFamilyError):
    """A build could not go on: no space, no permission, or a worker that died."""


class UsageError(ImagenetFamilyError, ValueError):
    """An argument has a value that cannot be used."""


class EvaluationError(ImagenetFamilyError, ValueError):
    """Predictions and labels cannot be compared."""
