#!/usr/bin/env python3
"""Makes the pictures beside it, and for each NAME the pixels that Pillow reads from it: NAME.expected.png.

    pip install pillow==13.0.0 numpy tifffile imagecodecs && apt-get install libjpeg-turbo-progs
    python3 make.py

Pillow decodes JPEG by libjpeg-turbo 3.2 here. A picture that is to be refused has no expected pixels. Where Pillow does
otherwise than Tessera on purpose (16 bits to 8, transparency), the arithmetic is written out below.
"""
import io, pathlib, struct, subprocess, zlib
import numpy as np
import tifffile
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).parent
RNG = np.random.default_rng(7)


def photo(height, width, channels=3):
    """A picture with the spectrum of photographs."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = 1
    planes = [np.fft.ifft2(np.fft.fft2(RNG.standard_normal((height, width))) / frequency).real for _ in range(channels)]
    planes = [128 + 60 * (plane - plane.mean()) / plane.std() for plane in planes]
    return np.clip(np.stack(planes, -1), 0, 255).round().astype(np.uint8)


def put(name, data, expected=None):
    (HERE / name).write_bytes(data)
    if expected is not None:
        Image.fromarray(np.asarray(expected, np.uint8)).save(HERE / f"{name}.expected.png", optimize=True)


def read(data):
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def saved(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def on_white(rgba):
    rgba = np.asarray(rgba).astype(int)
    alpha = rgba[..., 3:]
    return (rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255


def cjpeg(pixels, *options):
    ppm = b"P6 %d %d 255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes()
    return subprocess.run(["cjpeg", "-quality", "90", *options], input=ppm, capture_output=True, check=True).stdout


def jpegs():
    scans = HERE / "scans.txt"
    scans.write_text("0;\n1;\n2;\n")
    color = photo(27, 37)
    for name, sample in dict(s444="1x1", s422="2x1", s420="2x2", s411="4x1", s440="1x2", s410="4x2").items():
        for kind, options in dict(baseline=[], progressive=["-progressive"], scans=["-scans", str(scans)]).items():
            data = cjpeg(color, "-sample", f"{sample},1x1,1x1", *options)
            put(f"{name}-{kind}.jpg", data, read(data))
    scans.unlink()
    more = {
        "restart.jpg": cjpeg(color, "-restart", "1B"),
        "tiny.jpg": cjpeg(photo(5, 3)),
        "adobe-rgb.jpg": cjpeg(color, "-rgb"),
        "gray.jpg": cjpeg(color, "-grayscale"),
    }
    image = Image.fromarray(color)
    cmyk = saved(image.convert("CMYK"), "JPEG", quality=90)
    more["cmyk.jpg"] = cmyk
    at = cmyk.index(b"Adobe") + 11
    assert cmyk[at] == 0
    more["ycck.jpg"] = cmyk[:at] + b"\2" + cmyk[at + 1:]
    exif = Image.Exif()
    exif[0x0112] = 6
    more["turned.jpg"] = saved(image, "JPEG", quality=90, exif=exif)
    plain = saved(image, "JPEG", quality=90)
    at = plain.index(b"JFIF\0") + 5
    more["jfif-0.0.jfif"] = plain[:at] + b"\0\0" + plain[at + 2:]
    more["trailer.jpg"] = plain + b"what a phone writes behind a picture"
    for name, data in more.items():
        put(name, data, read(data))
    sof = plain.index(b"\xff\xc0")
    put("refused-arithmetic.jpg", cjpeg(color, "-arithmetic"))
    put("refused-12-bit.jpg", plain[:sof + 4] + b"\x0c" + plain[sof + 5:])
    put("refused-lossless.jpg", plain[:sof + 1] + b"\xc3" + plain[sof + 2:])
    end = plain.rindex(b"\xff\xd9")
    put("refused-bytes-too-many.jpg", plain[:end] + b"1234" + plain[end:])


def png(header, chunks, rows, interlace=0):
    """A PNG by hand: (bits, color type), more chunks, the bytes of each row."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    (width, height), (bits, kind) = header
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlace)
    body = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunk(*more) for more in chunks)
            + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def to_8(values):
    return (values.astype(int) + 128) // 257


def others():
    color = photo(14, 22)
    image = Image.fromarray(color)
    gray = color[..., 0]
    deep = RNG.integers(0, 65536, (14, 22, 3), dtype=np.uint16)
    alpha = RNG.integers(0, 256, (14, 22, 1), dtype=np.uint8)
    alpha[:4] = 0
    rgba = np.concatenate([color, alpha], -1)
    three = lambda plane: np.repeat(plane[..., None], 3, -1)
    size = (22, 14)

    put("rgb16.png", png((size, (16, 2)), [], deep.astype(">u2").view(np.uint8).reshape(14, -1)), to_8(deep))
    put("gray16.png", png((size, (16, 0)), [], deep[..., 0].astype(">u2").view(np.uint8).reshape(14, -1)),
        three(to_8(deep[..., 0])))
    put("rgba.png", saved(Image.fromarray(rgba), "PNG"), on_white(rgba))
    la = Image.fromarray(np.stack([gray, alpha[..., 0]], -1), "LA")
    put("gray-alpha.png", saved(la, "PNG"), on_white(la.convert("RGBA")))
    palette = image.quantize(16)
    indexed = saved(palette, "PNG", bits=4, transparency=3)
    put("palette-transparent.png", indexed, on_white(Image.open(io.BytesIO(indexed)).convert("RGBA")))
    keyed = saved(image, "PNG", transparency=tuple(int(value) for value in color[0, 0]))
    put("rgb-transparent.png", keyed, on_white(Image.open(io.BytesIO(keyed)).convert("RGBA")))
    bits = saved(image.convert("1"), "PNG")
    put("one-bit.png", bits, read(bits))

    frames = [palette, Image.fromarray(255 - color).quantize(16)]
    film = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    put("animated.gif", film, read(film))
    clear = saved(palette, "GIF", transparency=3)
    put("transparent.gif", clear, on_white(Image.open(io.BytesIO(clear)).convert("RGBA")))
    for name, options in dict(lossless=dict(lossless=True), lossy=dict(quality=80)).items():
        data = saved(image, "WEBP", **options)
        put(f"{name}.webp", data, read(data))
    data = saved(Image.fromarray(rgba), "WEBP", lossless=True, exact=True)
    put("alpha.webp", data, on_white(rgba))
    data = saved(image, "WEBP", save_all=True, append_images=[Image.fromarray(255 - color)], lossless=True)
    put("animated.webp", data, read(data))
    for name, picture in dict(rgb=image, palette=palette, bit=image.convert("1"), gray=Image.fromarray(gray)).items():
        data = saved(picture, "BMP")
        put(f"{name}.bmp", data, read(data))

    def tiff(name, pixels, expected, **options):
        file = io.BytesIO()
        tifffile.imwrite(file, pixels, **options)
        put(name, file.getvalue(), expected)
    for name, compression in dict(plain=None, lzw="lzw", deflate="zlib", packbits="packbits").items():
        tiff(f"{name}.tiff", color, color, photometric="rgb", compression=compression, rowsperstrip=5)
    tiff("tiles.tif", color, color, photometric="rgb", tile=(16, 16), compression="zlib", predictor=True)
    tiff("big-endian.tif", color, color, photometric="rgb", byteorder=">")
    tiff("gray.tif", gray, three(gray), photometric="minisblack")
    tiff("white-is-zero.tif", gray, three(255 - gray), photometric="miniswhite")
    tiff("rgb16.tif", deep, to_8(deep), photometric="rgb")
    tiff("gray16.tif", deep[..., 0], three(to_8(deep[..., 0])), photometric="minisblack")
    tiff("rgba.tif", rgba, on_white(rgba), photometric="rgb", extrasamples=["unassalpha"])
    tiff("planes.tif", np.moveaxis(color, -1, 0).copy(), color, photometric="rgb", planarconfig="separate")
    tiff("big.tif", color, color, photometric="rgb", bigtiff=True)
    tiff("pages.tif", np.stack([color, 255 - color]), color, photometric="rgb")
    tiff("turned.tif", color, np.rot90(color, -1), photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    ink = np.asarray(image.convert("CMYK"))
    tiff("cmyk.tif", ink, Image.fromarray(ink, "CMYK").convert("RGB"), photometric="separated")
    one = saved(image.convert("1"), "TIFF")
    put("one-bit.tif", one, read(one))
    fax = saved(image.convert("1"), "TIFF", compression="group4")
    put("fax.tif", fax, read(fax))
    jpeg = saved(image, "TIFF", compression="jpeg", quality=90)
    put("jpeg.tif", jpeg, read(jpeg))
    put("refused-palette.tif", saved(palette, "TIFF"))
    tiff("refused-float.tif", color.astype(np.float32) / 255, None, photometric="rgb")
    tiff("refused-gray-float.tif", gray.astype(np.float32) / 255, None, photometric="minisblack")

    head = b"%d %d " % size
    put("color.ppm", b"P6\n" + head + b"255\n" + color.tobytes(), color)
    put("gray.pgm", b"P5\n" + head + b"255\n" + gray.tobytes(), three(gray))
    put("text.pgm", b"P2\n" + head + b"15\n" + b" ".join(b"%d" % (v >> 4) for v in gray.ravel()),
        three((gray >> 4) * 17))
    put("gray16.pgm", b"P5\n" + head + b"65535\n" + deep[..., 0].astype(">u2").tobytes(), three(to_8(deep[..., 0])))
    bits = saved(image.convert("1"), "PPM")
    put("bits.pbm", bits, read(bits))
    for name, format in dict(avif="AVIF", jp2="JPEG2000").items():
        put(f"refused.{name}", saved(image, format))


if __name__ == "__main__":
    jpegs()
    others()
