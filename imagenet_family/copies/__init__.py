"""Reading tar archives by an index of their headers.

`index_archive` finds where the data of each member lies; an `ArchiveReader` reads members there:

```python
index = index_archive("ILSVRC2012_img_val.tar", cache_dir="cache")
with ArchiveReader(index.path, index.fingerprint, index.source) as reader:
    data = reader.read(index.offsets[i], index.sizes[i], index.checks[i], index.member_name(i))
```
"""

from imagenet_family.copies.index import ArchiveIndex, index_archive
from imagenet_family.copies.reader import ArchiveReader
from imagenet_family.storage.reads import Fingerprint

__all__ = ["ArchiveIndex", "ArchiveReader", "Fingerprint", "index_archive"]
