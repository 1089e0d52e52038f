"""One rank of a distributed run that reads an export with timm; it prints what it has read.

In a process of its own: torch's processes are forked, which TensorFlow's threads do not survive.
"""

import hashlib
import importlib
import json
import sys

import numpy as np
import torch
import torch.utils.data


def timm_data():
    """Gives the data package of timm.

    Beside a torch without GPU operators torchvision cannot be imported: it describes operators
    that are not there (`register_fake`). Readers use none of them.
    """
    register_fake = torch.library.register_fake

    def register_if_there(operator, *args, **kwargs):
        namespace, _, name = operator.partition("::")
        if hasattr(getattr(torch.ops, namespace), name):
            return register_fake(operator, *args, **kwargs)
        return lambda function: function

    torch.library.register_fake = register_if_there
    try:
        return importlib.import_module("timm.data")
    finally:
        torch.library.register_fake = register_fake


def fingerprint(pixels, label):
    """Gives a short text that is another one for other pixels or another label."""
    return f"{hashlib.sha256(pixels).hexdigest()} {label}"


def samples(batch):
    return [
        fingerprint(np.asarray(image.convert("RGB")).tobytes(), label) for image, label in batch
    ]


def main(output, rank, rendezvous, is_training):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=int(rank), world_size=2
    )
    dataset = timm_data().create_dataset(
        "wds/", root=output, split="validation", is_training=is_training == "True", batch_size=4
    )
    loader = torch.utils.data.DataLoader(dataset, batch_size=5, num_workers=2, collate_fn=samples)
    print(json.dumps([sample for batch in loader for sample in batch]))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
