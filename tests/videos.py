# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Small videos for tests: written by OpenCV, then changed in their bytes; and a server for streams."""

import contextlib
import http.server
import struct
import threading

import cv2
import numpy as np

CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".avi": "MJPG", ".mkv": "MJPG"}
RED = (0, 0, 255)  # BGR, as in OpenCV
ONE = 1 << 16  # 1.0 in 16.16 fixed point
ROTATIONS = {  # degrees clockwise -> a, b, c, d of the display matrix, ISO/IEC 14496-12, section 8.3.2
    0: (ONE, 0, 0, ONE),
    90: (0, ONE, -ONE, 0),
    180: (-ONE, 0, 0, -ONE),
    270: (0, -ONE, ONE, 0),
}


def write(path, frames=7, rate=12.5, size=(160, 120), image=None):
    """Writes a video of one image, by default red; returns its path as text."""
    image = np.full((size[1], size[0], 3), RED, np.uint8) if image is None else image
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*CODECS[path.suffix]), rate, image.shape[1::-1])
    for _ in range(frames):
        writer.write(image)
    writer.release()
    return str(path)


def read(path):
    """Returns (BGR frames, frames per second)."""
    capture = cv2.VideoCapture(str(path))
    rate, frames = capture.get(cv2.CAP_PROP_FPS), []
    while (result := capture.read())[0]:
        frames.append(result[1])
    capture.release()
    return frames, rate


def rotate(path, angle):
    """Writes a rotation into the track header of an MP4 file, as phones do."""
    a, b, c, d = ROTATIONS[angle]
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def trim(path, share):
    """Shortens an MP4 file to its first part by an edit list; the frames behind stay in the file."""
    content = bytearray(path.read_bytes())
    for kind, offset in ((b"elst", 12), (b"tkhd", 24)):
        start = content.index(kind) + offset
        [ticks] = struct.unpack_from(">I", content, start)
        struct.pack_into(">I", content, start, round(share * ticks))
    path.write_bytes(content)


def damage(path, indices):
    """Overwrites frames of an MP4 or AVI file with zeros."""
    content = bytearray(path.read_bytes())
    starts = mp4_frames(content) if b"stsz" in content else _avi_frames(content)
    for start, size in (starts[i] for i in indices):
        content[start : start + size] = bytes(size)
    path.write_bytes(content)


def truncate(path, frames):
    """Cuts an AVI file within the frame of an index."""
    content = path.read_bytes()
    start, size = _avi_frames(content)[frames]
    path.write_bytes(content[: start + size // 2])


def mp4_frames(content):
    """Returns start and size of each frame; OpenCV writes them one after the other."""
    table = content.index(b"stsz") + 8
    _, count = struct.unpack_from(">II", content, table)
    sizes = struct.unpack_from(f">{count}I", content, table + 8)
    starts = content.index(b"mdat") + 4 + np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return list(zip(starts.tolist(), sizes, strict=True))


def _avi_frames(content):
    """Returns start and size of each motion JPEG image."""
    frames, position = [], content.index(b"movi")
    while (position := content.find(b"00dc", position)) >= 0:
        [size] = struct.unpack_from("<I", content, position + 4)
        if content[position + 8 : position + 10] != b"\xff\xd8":  # the index
            break
        frames.append((position + 8, size))
        position += 8 + size
    return frames


@contextlib.contextmanager
def server(content=b"", frames=0, stall=0.0, bad=()):
    """Serves a file as /video.mp4, and at any other path a motion JPEG stream that dies; yields {host}:{port}.

    Args:
        content: of the file.
        frames: of the stream.
        stall: seconds that the stream says nothing before it dies.
        bad: indices of frames that cannot be decoded.
    """
    stopped = threading.Event()
    image = cv2.imencode(".jpg", np.full((120, 160, 3), RED, np.uint8))[1].tobytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            if self.path == "/video.mp4":
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                return
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for i in range(frames):
                body = image[:20] + bytes(len(image) - 20) if i in bad else image
                header = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
                self.wfile.write(header.encode() + body + b"\r\n")
            stopped.wait(stall)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{serving.server_port}"
        stopped.set()
        serving.shutdown()
        thread.join()
