"""What the user holds: an index of where each image lies, and a reader that reads it there.

```python
index = index_archive("ILSVRC2012_img_val.tar", cache_dir="cache")
with ArchiveReader(index.files) as reader:
    data = reader.read(
        index.file[i], index.offsets[i], index.sizes[i], index.checks[i], index.member_name(i)
    )
```
"""

from imagenet_family.copies.index import ArchiveIndex, index_archive
from imagenet_family.copies.reader import ArchiveReader
from imagenet_family.copies.source_file import SourceFile
from imagenet_family.storage.reads import Fingerprint

__all__ = ["ArchiveIndex", "ArchiveReader", "Fingerprint", "SourceFile", "index_archive"]
