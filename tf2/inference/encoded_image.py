# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoding of image files inside a graph, to the pixels that inference reads from them with Pillow.

TensorFlow's decoders ignore EXIF orientation. It is read here with operations of the graph, which also run where there
is no Python, as in TensorFlow Serving.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from dataset import tfrecord

ORIENTATION, SHORT, LONG = 0x0112, 3, 4  # tag, and types of its value
ENTRY = 12  # bytes of an entry of a TIFF directory: tag (2), type (2), count (4) and value (4)
LITTLE_ENDIAN, BIG_ENDIAN = b"II*\0", b"MM\0*"  # TIFF headers
JPEG_SCAN, JPEG_APP1, EXIF = 0xDA, b"\xe1", b"Exif\0\0"
PNG_SIGNATURE, PNG_EXIF = b"\x89PNG\r\n\x1a\n", b"eXIf"


def decode_batch(image_files: tf.Tensor, convert: Callable[[tf.Tensor], Any], specs: Any) -> Any:
    """Decodes images of any size, and converts each.

    Args:
        image_files: [B] string, JPEG, PNG, BMP or GIF; B may be 0.
        convert: function of an image, [H, W, 3] uint8, RGB.
        specs: TensorSpecs of its results.

    Returns:
        The results, with the dimension B first.

    Raises:
        tf.errors.InvalidArgumentError: if an image cannot be decoded; the message has its index. The reason is logged.
    """

    def convert_one(index_and_file):
        index, encoded = index_and_file
        # The only way to go on after the error of an operation, which would not have the index.
        decoded = tf.data.Dataset.from_tensors(encoded).map(decode).ignore_errors(log_warning=True)
        image = decoded.reduce(tf.zeros([0, 0, 3], tf.uint8), lambda _, image: image)
        message = ["cannot decode image", index, "of the batch (from 0): expected JPEG, PNG, BMP or GIF; its bytes:"]
        is_decoded = tf.raw_ops.Assert(condition=tf.size(image) > 0, data=[*message, tf.strings.length(encoded)])
        with tf.control_dependencies([is_decoded]):
            return convert(tf.identity(image))

    return tf.map_fn(convert_one, (tf.range(tf.size(image_files)), image_files), fn_output_signature=specs)


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG, PNG, BMP or GIF file, [] string, to an upright image, [H, W, 3] uint8, RGB."""
    content = tf.io.decode_raw(encoded, tf.uint8)
    is_jpeg = tf.io.is_jpeg(encoded)
    is_png = tf.reduce_all(_bytes(content, 0, len(PNG_SIGNATURE)) == list(PNG_SIGNATURE))
    image = tf.cond(is_jpeg, lambda: _decode_jpeg(encoded), lambda: tfrecord.decode_image(encoded))
    readers = [(is_jpeg, lambda: _exif_of_jpeg(content)), (is_png, lambda: _exif_of_png(content))]
    exif = tf.case(readers, default=lambda: content[:0])
    return turn(image, orientation(exif))


def turn(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns the upright image of pixels [H, W, 3] with an EXIF orientation, [] int64, 1-8.

    >>> turn(tf.zeros([48, 64, 3], tf.uint8), tf.constant(6, tf.int64)).shape
    TensorShape([64, 48, 3])
    """
    image = tf.transpose(image, tf.where(orientation >= 5, [1, 0, 2], [0, 1, 2]))
    is_flipped = tf.stack([_is_any(orientation, 3, 4, 7, 8), _is_any(orientation, 2, 3, 6, 7)])  # height, width
    return tf.ensure_shape(tf.reverse(image, tf.boolean_mask([0, 1], is_flipped)), [None, None, 3])


def orientation(exif: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF orientation, [] int64, 1-8.

    Args:
        exif: [K] uint8, a TIFF header and its first directory; 1 is returned for other or damaged content.
    """
    header = _bytes(exif, 0, 8)
    is_little, is_big = (tf.reduce_all(header[:4] == list(prefix)) for prefix in (LITTLE_ENDIAN, BIG_ENDIAN))

    def number(values):
        return _number(tf.where(is_little, tf.reverse(values, [-1]), values))

    start = tf.minimum(number(header[4:]), tf.size(exif, tf.int64)) + 2
    num_entries = tf.minimum(number(_bytes(exif, start - 2, 2)), (tf.size(exif, tf.int64) - start) // ENTRY)
    entries = tf.reshape(exif[start : start + num_entries * ENTRY], [-1, ENTRY])
    tags, kinds, counts = number(entries[:, :2]), number(entries[:, 2:4]), number(entries[:, 4:8])
    values = tf.where(kinds == SHORT, number(entries[:, 8:10]), number(entries[:, 8:]))
    is_found = (tags == ORIENTATION) & _is_any(kinds, SHORT, LONG) & (counts == 1) & (is_little | is_big)
    value = tf.concat([values[is_found], [1]], 0)[0]  # the first one, as Pillow
    return tf.where((value >= 1) & (value <= 8), value, 1)


def _decode_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")  # as Pillow


def _exif_of_jpeg(content: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF data of a JPEG, [K] uint8, or [0]: a segment before those of the pixels."""

    def is_exif(header):  # marker (2), size (2), name (6)
        return tf.reduce_all(tf.gather(header, [1, 4, 5, 6, 7, 8, 9]) == list(JPEG_APP1 + EXIF))

    def is_other(start, header):
        return (header[0] == 0xFF) & (header[1] != JPEG_SCAN) & ~is_exif(header)

    def move(start, header):
        is_fill = header[1] == 0xFF
        start += tf.where(is_fill, 1, 2 + tf.cast(_number(header[2:4]), tf.int32))
        return start, _bytes(content, start, 10)

    start, header = tf.while_loop(is_other, move, [2, _bytes(content, 2, 10)])
    size = tf.where(is_exif(header), _number(header[2:4]), 0)
    return content[start + 10 : start + 2 + tf.cast(size, tf.int32)]


def _exif_of_png(content: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF data of a PNG, [K] uint8, or [0]: a chunk anywhere in the file."""

    def is_other(start, header):  # size (4), type (4)
        return (start < tf.size(content, tf.int64)) & ~tf.reduce_all(header[4:] == list(PNG_EXIF))

    def move(start, header):
        start += 12 + _number(header[:4])
        return start, _bytes(content, start, 8)

    first = tf.constant(8, tf.int64)
    start, header = tf.while_loop(is_other, move, [first, _bytes(content, first, 8)])
    return content[start + 8 : start + 8 + _number(header[:4])]


def _bytes(content: tf.Tensor, start: tf.Tensor | int, size: int) -> tf.Tensor:
    """Returns bytes from a position in [K] content, [size] uint8, with zeros behind its end."""
    found = content[start : start + size]
    return tf.ensure_shape(tf.pad(found, [[0, size - tf.size(found)]]), [size])


def _number(values: tf.Tensor) -> tf.Tensor:
    """Returns the big-endian numbers of bytes [..., K], [...] int64."""
    weights = tf.constant([256**i for i in reversed(range(values.shape[-1]))], tf.int64)
    return tf.reduce_sum(tf.cast(values, tf.int64) * weights, -1)


def _is_any(values: tf.Tensor, *accepted: int) -> tf.Tensor:
    """Returns True where a value is one of the accepted ones."""
    return tf.reduce_any(tf.expand_dims(values, -1) == accepted, -1)
