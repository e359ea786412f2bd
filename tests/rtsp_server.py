# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""A small RTSP server for tests: plays the MPEG-4 frames of a file of OpenCV over TCP, then hangs up.

Reference: RFC 2326 (RTSP), RFC 6416 (RTP payload of MPEG-4).
"""

import base64
import contextlib
import pathlib
import socketserver
import struct
import threading

import videos

CLOCK = 90000  # RTP ticks per second
PAYLOAD = 96  # RTP payload type of the video
PACKET_BYTES = 1200
SDP = """v=0
o=- 0 0 IN IP4 127.0.0.1
s=test
c=IN IP4 0.0.0.0
t=0 0
m=video 0 RTP/AVP {payload}
a=rtpmap:{payload} MP4V-ES/{clock}
a=fmtp:{payload} profile-level-id=1; config={config}
a=control:track
"""


@contextlib.contextmanager
def serve(path, credentials, rate=25):
    """Plays an .mp4 file to clients with `user:password`; yields {host}:{port}."""
    content = pathlib.Path(path).read_bytes()
    frames = [content[start : start + size] for start, size in videos.mp4_frames(content)]
    sdp = SDP.format(payload=PAYLOAD, clock=CLOCK, config=decoder_config(content).hex()).replace("\n", "\r\n")
    expected = f"Basic {base64.b64encode(credentials.encode()).decode()}"

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            while request := self.rfile.readline().split():
                headers = read_headers(self.rfile)
                method = request[0].decode()
                if headers.get("authorization") != expected:
                    self.reply(headers, "401 Unauthorized", 'WWW-Authenticate: Basic realm="test"')
                elif method == "DESCRIBE":
                    self.reply(headers, "200 OK", "Content-Type: application/sdp", body=sdp)
                elif method == "SETUP" and "TCP" not in headers["transport"]:
                    self.reply(headers, "461 Unsupported Transport")
                elif method == "SETUP":
                    self.reply(headers, "200 OK", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1")
                else:
                    self.reply(headers, "200 OK", "Session: 1", "Public: DESCRIBE, SETUP, PLAY")
                if method == "PLAY":
                    self.wfile.write(b"".join(packets(frames, rate)))
                    return

        def reply(self, headers, status, *lines, body=""):
            lines = (f"RTSP/1.0 {status}", f"CSeq: {headers['cseq']}", f"Content-Length: {len(body)}", *lines, "", body)
            self.wfile.write("\r\n".join(lines).encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()
        thread.join()


def read_headers(file):
    """Returns the headers of a request by their names in lower case."""
    headers = {}
    while line := file.readline().decode().strip():
        name, _, value = line.partition(": ")
        headers[name.lower()] = value
    return headers


def packets(frames, rate):
    """Yields RTP packets, each after the header of an interleaved channel; the last one of a frame has a marker."""
    sequence = 0
    for i, frame in enumerate(frames):
        for start in range(0, len(frame), PACKET_BYTES):
            marker = 0x80 if start + PACKET_BYTES >= len(frame) else 0
            header = struct.pack(">BBHII", 0x80, PAYLOAD | marker, sequence, i * CLOCK // rate, 1)
            packet = header + frame[start : start + PACKET_BYTES]
            yield b"$\0" + struct.pack(">H", len(packet)) + packet
            sequence += 1


def decoder_config(content):
    """Returns the DecoderSpecificInfo of an .mp4 file, ISO/IEC 14496-1, section 7.2.6.7."""
    position, size = content.index(b"\x05", content.index(b"esds") + 8) + 1, 0
    while True:
        byte = content[position]
        position, size = position + 1, size << 7 | byte & 0x7F
        if byte < 0x80:
            return content[position : position + size]
