from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest

from segclip import images
from segclip.errors import BadImage
from segclip.files import listing
from segclip.types import Array, Image
from tests.encoded import BLUE, GREEN, RED, assert_quarters, encode, quarters

ENCODINGS = ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"]


def png_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_header(width: int, height: int) -> bytes:
    """Make a PNG of a given size with almost no data: the header of a decompression bomb."""
    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return png_chunks((b"IHDR", ihdr), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b""))


class TestFormats:
    @pytest.mark.parametrize("format", ENCODINGS)
    def test_every_format_reads_from_a_path_and_from_bytes(
        self, format: str, tmp_path: Path
    ) -> None:
        options = (
            {"lossless": True}
            if format == "WEBP"
            else {"quality": 95, "subsampling": 0}
            if format == "JPEG"
            else {}
        )
        data = encode(PIL.Image.fromarray(quarters()), format, **options)
        path = tmp_path / "image.wrong-suffix"
        path.write_bytes(data)
        tolerance = 90 if format == "JPEG" else 0  # ringing at the edges between flat colours
        assert_quarters(images.load(path).pixels, tolerance)
        assert_quarters(images.load(str(path)).pixels, tolerance)
        assert_quarters(images.load(data).pixels, tolerance)

    @pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
    def test_compressed_tiff(self, compression: str) -> None:
        data = encode(PIL.Image.fromarray(quarters()), "TIFF", compression=compression)
        assert_quarters(images.load(data).pixels)

    def test_source_is_the_path_or_the_label(self, tmp_path: Path) -> None:
        path = tmp_path / "desk.png"
        PIL.Image.fromarray(quarters()).save(path)
        assert images.load(path).source == str(path)
        assert images.load(path, label="a desk").source == "a desk"
        assert images.load(path.read_bytes()).source == "image"
        with PIL.Image.open(path) as opened:
            assert images.load(opened).source == str(path)
        assert images.load(quarters(), label="upload").source == "upload"

    def test_an_image_is_returned_as_it_is(self) -> None:
        image = Image(quarters(), "here")
        assert images.load(image) is image
        assert images.load(image, label="there").source == "there"


def test_w3_red_stays_red_from_every_kind_of_source(tmp_path: Path) -> None:
    """FastSAM swapped red and blue for paths and PIL images."""
    pixels = np.full((8, 8, 3), RED, np.uint8)
    path = tmp_path / "red.png"
    PIL.Image.fromarray(pixels).save(path)
    for source in (
        path,
        str(path),
        path.read_bytes(),
        PIL.Image.open(path),
        PIL.Image.fromarray(pixels),
        pixels,
    ):
        assert np.array_equal(images.load(source).pixels, pixels)


# how a camera stores an upright image for each EXIF orientation
STORED: dict[int, Callable[[Array], Array]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: p.transpose(1, 0, 2)[::-1],
    7: lambda p: p.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda p: p.transpose(1, 0, 2)[:, ::-1],
}


class TestOrientation:
    @pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_every_exif_orientation_comes_upright(self, orientation: int, format: str) -> None:
        stored = PIL.Image.fromarray(np.ascontiguousarray(STORED[orientation](quarters())))
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        options = (
            {"lossless": True}
            if format == "WEBP"
            else {"quality": 95, "subsampling": 0}
            if format == "JPEG"
            else {}
        )
        data = encode(stored, format, exif=exif, **options)
        tolerance = 90 if format == "JPEG" else 0
        assert_quarters(images.load(data).pixels, tolerance)
        assert_quarters(images.load(PIL.Image.open(io.BytesIO(data))).pixels, tolerance)

    def test_unreadable_exif_does_not_lose_the_image(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        data = encode(PIL.Image.fromarray(quarters()), "PNG", exif=b"Exif\x00\x00nonsense")
        with caplog.at_level(logging.WARNING):
            assert_quarters(images.load(data).pixels)
        assert "EXIF" in caplog.text


class TestModes:
    def test_grey(self) -> None:
        grey = quarters()[:, :, 1]
        pixels = images.load(encode(PIL.Image.fromarray(grey), "PNG")).pixels
        assert np.array_equal(pixels, np.dstack([grey] * 3))

    def test_alpha_is_composited_on_white(self) -> None:
        alpha = np.zeros((40, 60), np.uint8)
        alpha[:20], alpha[20:30] = 255, 128
        pixels = images.load(
            encode(PIL.Image.fromarray(np.dstack((np.zeros_like(quarters()), alpha))), "PNG")
        ).pixels
        assert (pixels[:20] == 0).all()
        assert (np.abs(pixels[20:30].astype(int) - 127) <= 1).all()
        assert (pixels[30:] == 255).all()

    def test_grey_with_alpha(self) -> None:
        pair = np.zeros((4, 4, 2), np.uint8)
        pair[:2, :, 1] = 255
        pixels = images.load(encode(PIL.Image.fromarray(pair, "LA"), "PNG")).pixels
        assert (pixels[:2] == 0).all()
        assert (pixels[2:] == 255).all()

    def test_palette(self) -> None:
        palette = PIL.Image.fromarray(quarters()).convert(
            "P", palette=PIL.Image.Palette.ADAPTIVE, colors=8
        )
        assert_quarters(images.load(encode(palette, "PNG")).pixels)

    @pytest.mark.parametrize("format", ["PNG", "GIF"])
    def test_palette_with_a_transparent_colour(self, format: str) -> None:
        palette = PIL.Image.fromarray(quarters()).convert(
            "P", palette=PIL.Image.Palette.ADAPTIVE, colors=8
        )
        red = np.asarray(palette)[0, 0]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pixels = images.load(encode(palette, format, transparency=int(red))).pixels
        assert (pixels[:20, :30] == 255).all()
        assert (pixels[:20, 30:] == GREEN).all()

    def test_rgb_with_a_transparent_colour(self) -> None:
        pixels = images.load(
            encode(PIL.Image.fromarray(quarters()), "PNG", transparency=RED)
        ).pixels
        assert (pixels[:20, :30] == 255).all()
        assert (pixels[20:, :30] == BLUE).all()

    def test_black_and_white(self) -> None:
        bits = quarters()[:, :, 0] > 0
        pixels = images.load(encode(PIL.Image.fromarray(bits), "PNG")).pixels
        assert np.array_equal(pixels[:, :, 2], bits * 255)

    @pytest.mark.parametrize("format", ["JPEG", "TIFF"])
    def test_cmyk(self, format: str) -> None:
        pixels = images.load(encode(PIL.Image.fromarray(quarters()).convert("CMYK"), format)).pixels
        assert (np.abs(pixels[5, 5].astype(int) - RED) <= 12).all()
        assert (np.abs(pixels[35, 5].astype(int) - BLUE) <= 12).all()

    @pytest.mark.parametrize("format", ["PNG", "TIFF"])
    def test_16_bit_grey_keeps_its_high_byte(self, format: str) -> None:
        ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
        data = encode(PIL.Image.fromarray(ramp.astype(np.uint16) * 257), format)
        assert np.array_equal(images.load(data).pixels[:, :, 0], ramp)

    def test_16_bit_rgb_png(self) -> None:
        rows = (quarters().astype(">u2") * 257).reshape(40, -1)
        data = b"".join(b"\0" + row.tobytes() for row in rows)
        header = struct.pack(">IIBBBBB", 60, 40, 16, 2, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
        assert_quarters(images.load(png_chunks(*chunks)).pixels)

    def test_16_bit_rgb_tiff(self) -> None:
        pixels = quarters().astype("<u2") * 257
        tags = [(256, 4, 1, 60), (257, 4, 1, 40), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2)]
        tags += [(273, 4, 1, 128), (277, 3, 1, 3), (278, 4, 1, 40), (279, 4, 1, pixels.nbytes)]
        directory = (
            struct.pack("<H", len(tags))
            + b"".join(struct.pack("<HHII", *tag) for tag in tags)
            + b"\0" * 4
        )
        head = (struct.pack("<2sHI", b"II", 42, 8) + directory).ljust(122, b"\0") + struct.pack(
            "<3H", 16, 16, 16
        )
        assert_quarters(images.load(head + pixels.tobytes()).pixels)

    def test_float_tiff(self) -> None:
        unit = PIL.Image.fromarray(np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16))
        assert np.array_equal(
            images.load(encode(unit, "TIFF")).pixels[:, :, 0].ravel(), np.arange(256)
        )
        with pytest.raises(BadImage, match=r"float in \[0, 1\], got float32 from 0.0 to 300.0"):
            images.load(encode(unit.point(lambda v: v * 300), "TIFF"))

    def test_32_bit_integers_beyond_16_bits_are_refused(self) -> None:
        with pytest.raises(BadImage, match="32-bit"):
            images.load(PIL.Image.fromarray(np.full((4, 4), 70_000, np.int32)))


class TestSeveralFrames:
    @pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
    def test_the_first_frame_is_read_and_the_others_logged(
        self, format: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        first, second = (PIL.Image.new("RGB", (16, 8), colour) for colour in ("red", "blue"))
        options = {"lossless": True} if format == "WEBP" else {}
        data = encode(first, format, save_all=True, append_images=[second, first], **options)
        with caplog.at_level(logging.WARNING):
            pixels = images.load(data, label="dance").pixels
        assert (pixels == RED).all()
        assert "dance holds several frames; only frame 1 is used" in caplog.text

    def test_one_frame_logs_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        images.load(encode(PIL.Image.fromarray(quarters()), "GIF"))
        assert not caplog.records

    def test_a_pil_image_keeps_the_frame_it_stands_on(self) -> None:
        frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
        opened = PIL.Image.open(
            io.BytesIO(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
        )
        opened.seek(1)
        assert (images.load(opened).pixels == GREEN).all()


class TestBadFiles:
    @pytest.mark.parametrize("format", ENCODINGS)
    def test_truncated(self, format: str, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        data = encode(PIL.Image.fromarray(noise), format)
        path = tmp_path / "half.bin"
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(BadImage, match=r"half\.bin: .*(truncated|damaged)"):
            images.load(path)

    @pytest.mark.filterwarnings("ignore:Truncated File Read")
    @pytest.mark.parametrize("format", ENCODINGS)
    def test_cut_anywhere_is_an_image_or_a_bad_image(self, format: str) -> None:
        data = encode(PIL.Image.fromarray(quarters()), format)
        for end in range(0, len(data), max(1, len(data) // 60)):
            try:
                assert images.load(data[:end]).size == (40, 60)
            except BadImage:
                continue

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "nothing.png").touch()
        with pytest.raises(BadImage, match=r"nothing\.png: the file is empty"):
            images.load(tmp_path / "nothing.png")
        with pytest.raises(BadImage, match="empty"):
            images.load(b"")

    @pytest.mark.parametrize("data", [b"hello, this is no image", b"%PDF-1.7\n", b"\0" * 100, b"x"])
    def test_not_an_image(self, data: bytes, tmp_path: Path) -> None:
        (tmp_path / "notes.jpg").write_bytes(data)
        with pytest.raises(
            BadImage, match=r"notes\.jpg: not a JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC image"
        ):
            images.load(tmp_path / "notes.jpg")

    @pytest.mark.parametrize(("width", "height"), [(0, 10), (10, 0), (0, 0)])
    def test_zero_size(self, width: int, height: int) -> None:
        with pytest.raises(BadImage, match=r"flat: .*zero size"):
            images.load(png_header(width, height), label="flat")

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(BadImage, match="it is a folder"):
            images.load(tmp_path)

    def test_missing(self) -> None:
        with pytest.raises(BadImage, match=r"gone\.jpg: no such file"):
            images.load("gone.jpg")

    def test_a_web_address(self) -> None:
        with pytest.raises(BadImage, match=r"^https://a\.org/b\.jpg: a web address.*download it"):
            images.load("https://a.org/b.jpg")

    @pytest.mark.parametrize("name", ["a\0b.png", "long" * 2000])
    def test_impossible_names(self, name: str) -> None:
        with pytest.raises(BadImage, match="cannot be opened"):
            images.load(name)

    def test_closed_image(self, tmp_path: Path) -> None:
        PIL.Image.fromarray(quarters()).save(tmp_path / "shut.png")
        opened = PIL.Image.open(tmp_path / "shut.png")
        opened.close()
        with pytest.raises(BadImage, match=r"shut\.png"):
            images.load(opened)

    def test_other_types_are_refused_with_what_is_allowed(self) -> None:
        with pytest.raises(BadImage, match="cannot read a list as an image; give a path"):
            images.load([1, 2, 3])  # type: ignore[arg-type]


class TestPipesAndDevices:
    """Fault 17.13: reading a pipe blocked for ever, a device never ended."""

    @pytest.mark.timeout(60)
    def test_a_pipe_is_refused_at_once(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.png")
        (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
        for name in ("a.png", "link.png"):
            with pytest.raises(
                BadImage, match=r"png: a pipe, socket or device, not an image file; save the image"
            ):
                images.load(tmp_path / name)
        assert images.taken(tmp_path / "a.png") is None

    @pytest.mark.timeout(60)
    def test_a_pipe_that_replaces_a_file_does_not_block(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        os.mkfifo(tmp_path / "a.png")
        (tmp_path / "b.png").touch()
        as_file = (tmp_path / "b.png").stat()
        monkeypatch.setattr(Path, "stat", lambda *args, **options: as_file)
        with pytest.raises(BadImage):
            images.load(tmp_path / "a.png")

    @pytest.mark.timeout(60)
    @pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/random"])
    def test_a_device_is_refused_at_once(self, device: str) -> None:
        with pytest.raises(BadImage, match="a pipe, socket or device"):
            images.load(device)

    def test_a_socket_is_refused(self, tmp_path: Path) -> None:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
            server.bind(str(tmp_path / "a"))
            with pytest.raises(BadImage, match="a pipe, socket or device"):
                images.load(tmp_path / "a")


class TestDepth:
    """Fault 17.21: 12-bit data in 16-bit files were read as black."""

    @pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
    @pytest.mark.parametrize("kind", ["png", "tif", "grey png", "grey tif", "rgba png", "array"])
    def test_16_bit_files_are_read_by_the_bits_they_use(
        self, bits: int, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        colours = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint16)
        colours[0, 0] = 255
        values = colours << (bits - 8) | colours >> 2 & (1 << (bits - 8)) - 1
        wanted = colours.copy()
        if "grey" in kind:
            values, wanted = values[..., 0], np.dstack([colours[..., 0]] * 3)
        if "rgba" in kind:
            alpha = np.full((20, 30, 1), 65535, np.uint16)
            alpha[5:] = 0
            wanted[5:] = 255
            values = np.concatenate([values, alpha], axis=2)
        stored = values if values.ndim == 2 else values[..., [2, 1, 0, 3][: values.shape[2]]]
        source = (
            values
            if kind == "array"
            else cv2.imencode("." + kind.rsplit(maxsplit=1)[-1], stored)[1].tobytes()
        )
        with caplog.at_level(logging.WARNING):
            pixels = images.load(source, label="deep").pixels
        assert np.array_equal(pixels, wanted)
        assert (f"read as values of {bits} bits" in caplog.text) == (bits < 16)

    def test_black_stays_black(self) -> None:
        assert not images.load(np.zeros((4, 4, 3), np.uint16)).pixels.any()


class TestOtherFormats:
    def test_avif(self) -> None:
        if not listing.is_readable("AVIF"):
            pytest.skip("this Pillow has no AVIF")
        data = encode(PIL.Image.fromarray(quarters()), "AVIF", quality=100, subsampling="4:4:4")
        assert_quarters(images.load(data).pixels, 90)

    def test_heic(self) -> None:
        pillow_heif = pytest.importorskip("pillow_heif")
        file = io.BytesIO()
        pillow_heif.from_pillow(PIL.Image.fromarray(quarters())).save(file, quality=100)
        assert_quarters(images.load(file.getvalue()).pixels, 90)

    def test_a_decoder_error_of_several_lines_becomes_one_line(self) -> None:
        pillow_heif = pytest.importorskip("pillow_heif")
        file = io.BytesIO()
        pillow_heif.from_pillow(PIL.Image.fromarray(quarters())).save(file)
        data = bytearray(file.getvalue())
        extents = data.index(b"iloc") + 20
        data[extents : extents + 2] = b"\x75\x01"
        with pytest.raises(BadImage, match="iloc") as caught:
            images.load(bytes(data), label="phone")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("brand", "needed"), [(b"heic", "HEIC needs pillow-heif"), (b"avif", "AVIF needs Pillow")]
    )
    def test_what_is_not_installed_is_named(
        self, brand: bytes, needed: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(listing, "is_readable", lambda format: False)
        data = b"\0\0\0\x18ftypmif1\0\0\0\0mif1" + brand + b"\0" * 40
        with pytest.raises(BadImage, match=f"phone: {needed}.*pip install"):
            images.load(data, label="phone")


class TestManyPages:
    """Fault 17.21: TIFFs and GIFs of 10^5 pages took two minutes; only the first is read."""

    @pytest.mark.timeout(60)
    @pytest.mark.parametrize("format", ["TIFF", "GIF"])
    def test_only_the_first_page_is_read(
        self, format: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        data = tiff_of(100_000) if format == "TIFF" else gif_of(100_000)
        with caplog.at_level(logging.WARNING):
            assert images.load(data, label="book").size == (1, 1)
        assert "book holds several frames; only frame 1 is used" in caplog.text

    def test_a_damaged_second_page_does_not_lose_the_first(self) -> None:
        assert images.load(tiff_of(3)[:-10]).size == (1, 1)


def tiff_of(pages: int) -> bytes:
    """Make a grey TIFF with pages of one pixel."""
    out = [struct.pack("<2sHI", b"II", 42, 8)]
    tags = [
        (256, 3, 1, 1),
        (257, 3, 1, 1),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 4),
        (277, 3, 1, 1),
        (278, 3, 1, 1),
        (279, 4, 1, 1),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    for page in range(pages):
        after = 8 + (page + 1) * (len(directory) + 4)
        out += [directory, struct.pack("<I", after if page + 1 < pages else 0)]
    return b"".join(out)


def gif_of(frames: int) -> bytes:
    one = encode(PIL.Image.new("P", (1, 1)), "GIF")
    start = one.index(b",")  # the image descriptor
    return one[:start] + one[start:-1] * frames + b";"


class TestPixelLimit:
    def test_the_header_alone_decides(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(
                BadImage,
                match=r"bomb: 60000 x 60000 = 3,600,000,000 .* limit of 100,000,000; .*max_pixels",
            ):
                images.load(png_header(60_000, 60_000), label="bomb")

    # Pillow warns from 89 and fails from 179 megapixels
    @pytest.mark.parametrize("width", [9_500, 40_000])
    def test_pillows_own_limit_neither_warns_nor_fails(self, width: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # past every limit, to the missing pixels
            with pytest.raises(BadImage, match="truncated or damaged"):
                images.load(png_header(width, 9_500), max_pixels=10**9)

    def test_pillows_global_is_left_alone(self) -> None:
        before = PIL.Image.MAX_IMAGE_PIXELS
        images.load(quarters())
        images.load(encode(PIL.Image.fromarray(quarters()), "PNG"))
        assert before == PIL.Image.MAX_IMAGE_PIXELS

    @pytest.mark.parametrize("source", [quarters(), PIL.Image.fromarray(quarters())])
    def test_the_limit_is_an_option_for_every_source(self, source: Any) -> None:
        assert images.load(source, max_pixels=2400).size == (40, 60)
        with pytest.raises(BadImage, match="2,400 pixels is over the limit of 2,399"):
            images.load(source, max_pixels=2399)


class TestArrays:
    GREY = np.array([[0, 100], [200, 255]], np.uint8)

    @pytest.mark.parametrize(
        "array",
        [
            GREY,
            GREY[:, :, None],
            np.dstack([GREY] * 3),
            np.dstack([GREY, GREY, GREY, np.full_like(GREY, 255)]),
            GREY.astype(np.uint16) * 257,
            (GREY.astype(np.uint16) * 257).astype(">u2"),
            GREY / 255,
            (GREY / 255).astype(np.float32)[:, :, None],
            GREY.T.copy().T,
        ],
    )
    def test_every_shape_and_depth(self, array: Array) -> None:
        pixels = images.load(array).pixels
        assert np.array_equal(pixels, np.dstack([self.GREY] * 3))
        assert pixels.dtype == np.uint8

    def test_bool(self) -> None:
        assert images.load(np.array([[True, False]])).pixels[0].tolist() == [[255] * 3, [0] * 3]

    def test_the_image_does_not_share_the_callers_memory(self) -> None:
        array = quarters()
        image = images.load(array)
        array[:] = 0
        assert_quarters(image.pixels)
        assert image.pixels.flags.writeable

    @pytest.mark.parametrize(
        "shape", [(3,), (4, 4, 2), (4, 4, 5), (3, 4, 4, 3), (0, 4, 3), (4, 0), ()]
    )
    def test_bad_shapes(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(BadImage, match=r"want an array \(H, W\)"):
            images.load(np.zeros(shape, np.uint8))

    @pytest.mark.parametrize(
        "array",
        [GREY.astype(np.float32), np.full((2, 2), np.nan), GREY - 300.5, GREY.astype(np.int64)],
    )
    def test_values_whose_range_is_unknown_are_refused(self, array: Array) -> None:
        with pytest.raises(
            BadImage, match=r"want uint8, uint16, bool, or float in \[0, 1\], got \w+ from"
        ):
            images.load(array)

    @pytest.mark.parametrize(
        "array", [np.array([["a", "b"]]), np.array([[None]]), np.ones((2, 2), complex)]
    )
    def test_other_dtypes_are_refused(self, array: Array) -> None:
        with pytest.raises(BadImage, match="want uint8"):
            images.load(array)
