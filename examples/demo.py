"""Trace AlexNet on a photograph: summary, look-ups, picture, trace file. Run it with `make demo`.

The weights are random, drawn from a fixed seed: what is shown is the inside of the network at work, not a good guess
at what the photograph shows.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

import torchlens as tl
from alexnet import AlexNet

PHOTO = Path(__file__).parent / "photo" / "chelsea.jpg"
OUTPUT = Path("demo_output")

IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def load_photo(path: Path) -> torch.Tensor:
    """The middle of a picture as a normalised batch of one: shape (1, 3, 224, 224), float32."""
    with Image.open(path) as picture:
        pixels = np.array(ImageOps.fit(picture.convert("RGB"), (224, 224)))
    scaled = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    return ((scaled - IMAGENET_MEAN) / IMAGENET_STD).unsqueeze(0)


def size_of(path: Path) -> str:
    """What a file or folder takes on disk, in MB."""
    files = path.rglob("*") if path.is_dir() else [path]
    return f"{sum(file.stat().st_size for file in files) / 1e6:.2f} MB"


def main() -> None:
    """Run the demo in the current folder."""
    torch.manual_seed(0)
    model = AlexNet().eval()
    x = load_photo(PHOTO)

    print(f"AlexNet with random weights, on {PHOTO.name}\n")
    log = tl.trace(model, x)  # one call: the full graph and every activation
    print(log.summary())

    print("\nLook up any operation, by name, module path or position:")
    print("  log['relu_1_2'].out.shape  ", log["relu_1_2"].out.shape)
    print("  log['features.6'].out.shape", log["features.6"].out.shape)
    print("  log[7].func_name           ", log[7].func_name)
    print("  log['conv2d_3'].out.shape  ", log["conv2d_3"].out.shape)
    print("  log[-1].layer_label        ", log[-1].layer_label)
    print("\nprint(log['conv2d_3_7']):\n")
    print(log["conv2d_3_7"])

    OUTPUT.mkdir(exist_ok=True)
    for fileformat in ("svg", "pdf"):
        log.draw(vis_outpath=str(OUTPUT / "alexnet"), vis_fileformat=fileformat, vis_save_only=True)

    trace_file = OUTPUT / "alexnet.tlspec"
    tl.save(log, trace_file, overwrite=True)
    print("\nThe trace file, as tl.inspect shows it without reading an array:\n")
    print(tl.inspect(trace_file))

    loaded = tl.load(trace_file)
    same = [np.array_equal(op.numpy(), loaded[op.label].out) for op in log]  # a loaded trace holds numpy arrays
    if not all(same):
        raise SystemExit(f"{same.count(False)} of {len(same)} outputs read back differ from those saved")
    print(f"\nRead back: all {len(same)} outputs are equal to those saved.")

    print("\nWritten:")
    for path in (OUTPUT / "alexnet.svg", OUTPUT / "alexnet.pdf", trace_file):
        print(f"  {path}  {size_of(path)}")


if __name__ == "__main__":
    main()
