"""One participant with the Python SDK: publishes a moving picture and a tone, and reports what it receives.

Options come as JSON in the environment variable OPTIONS; findings go to standard output, one JSON object a line.
"""

import asyncio
import json
import math
import os
import sys

from livekit import rtc

WIDTH, HEIGHT, FRAME_RATE = 640, 480, 15
SAMPLE_RATE, TONE_HZ = 48_000, 440


def say(finding: str, **values: object) -> None:
    print(json.dumps({"finding": finding, **values}), flush=True)


async def publish_picture(source: rtc.VideoSource) -> None:
    """Grey levels with a bar that moves: every frame differs from the one before."""
    chroma = bytes([128]) * (WIDTH * HEIGHT // 2)
    count = 0
    while True:
        bar = (count * 16) % WIDTH
        row = bytearray([(40 + count * 5) % 200]) * WIDTH
        row[bar : bar + 16] = bytes([235]) * 16
        frame = rtc.VideoFrame(WIDTH, HEIGHT, rtc.VideoBufferType.I420, bytes(row[:WIDTH]) * HEIGHT + chroma)
        source.capture_frame(frame)
        count += 1
        await asyncio.sleep(1 / FRAME_RATE)


async def publish_tone(source: rtc.AudioSource) -> None:
    samples = SAMPLE_RATE // 100
    phase = 0
    while True:
        frame = rtc.AudioFrame.create(SAMPLE_RATE, 1, samples)
        data = frame.data
        for at in range(samples):
            data[at] = int(8000 * math.sin(2 * math.pi * TONE_HZ * (phase + at) / SAMPLE_RATE))
        phase += samples
        await source.capture_frame(frame)


COSINE = [math.cos(2 * math.pi * TONE_HZ * at / SAMPLE_RATE) for at in range(SAMPLE_RATE // 100)]
SINE = [math.sin(2 * math.pi * TONE_HZ * at / SAMPLE_RATE) for at in range(SAMPLE_RATE // 100)]


def is_tone(data: list[int]) -> bool:
    """Whether most of the energy of some 10 ms is at the tone's frequency."""
    energy = sum(value * value for value in data)
    if energy < 100 * 100 * len(data):
        return False
    real = sum(value * factor for value, factor in zip(data, COSINE))
    imaginary = sum(value * factor for value, factor in zip(data, SINE))
    return 2 * (real * real + imaginary * imaginary) / len(data) > energy / 2


class Received:
    """What came from the other participant."""

    def __init__(self) -> None:
        self.origin = ""
        self.tracks = 0
        self.frames = 0
        self.pictures: set[int] = set()
        self.samples = 0
        self.loudest = 0
        self.tone_ms = 0
        self.said = False

    def values(self) -> dict[str, object]:
        return {
            "from": self.origin,
            "tracks": self.tracks,
            "frames": self.frames,
            "pictures": len(self.pictures),
            "samples": self.samples,
            "loudest": self.loudest,
            "tone_ms": self.tone_ms,
        }

    def check(self) -> None:
        if not self.said and self.frames >= 15 and len(self.pictures) >= 2 and self.samples >= 24_000 and self.loudest > 100:
            self.said = True
            say("received", **self.values())

    async def watch(self, track: rtc.Track) -> None:
        stream = rtc.VideoStream(track, format=rtc.VideoBufferType.I420)
        async for event in stream:
            self.frames += 1
            self.pictures.add(hash(bytes(event.frame.data[: event.frame.width * 2])))
            self.check()

    async def listen(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=SAMPLE_RATE, num_channels=1)
        async for event in stream:
            data = event.frame.data
            self.samples += event.frame.samples_per_channel
            self.loudest = max(self.loudest, max((abs(value) for value in data), default=0))
            if len(data) == len(COSINE) and is_tone(list(data)):
                self.tone_ms += 10
            self.check()


async def main() -> None:
    options = json.loads(os.environ["OPTIONS"])
    encryption = rtc.E2EEOptions(
        key_provider_options=rtc.KeyProviderOptions(shared_key=options["key"].encode()),
    )
    room = rtc.Room()
    received = Received()
    tasks: set[asyncio.Task[None]] = set()

    def spawn(work) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    @room.on("track_subscribed")
    def on_track(track: rtc.Track, _publication, participant: rtc.RemoteParticipant) -> None:
        received.origin = participant.identity
        received.tracks += 1
        spawn(received.watch(track) if track.kind == rtc.TrackKind.KIND_VIDEO else received.listen(track))

    @room.on("data_received")
    def on_data(packet: rtc.DataPacket) -> None:
        if packet.topic == "from-page":
            say("data", text=packet.data.decode())

    def on_text(reader: rtc.TextStreamReader, _identity: str) -> None:
        async def read() -> None:
            say("text", text=await reader.read_all())

        spawn(read())

    room.register_text_stream_handler("lk.chat", on_text)

    async def greet() -> None:
        await room.local_participant.publish_data(b"bytes from python", reliable=True, topic="from-python")
        await room.local_participant.send_text("text from python", topic="lk.chat")

    @room.on("participant_connected")
    def on_participant(_participant: rtc.RemoteParticipant) -> None:
        async def later() -> None:
            # The other side's data channel opens a moment after it shows up.
            for _ in range(5):
                await asyncio.sleep(2)
                await greet()

        spawn(later())

    await room.connect(
        options["url"],
        options["token"],
        rtc.RoomOptions(encryption=encryption, single_peer_connection=options["single"], connect_timeout=10),
    )
    say("connected", sid=await room.sid)

    video = rtc.VideoSource(WIDTH, HEIGHT)
    audio = rtc.AudioSource(SAMPLE_RATE, 1)
    spawn(publish_picture(video))
    spawn(publish_tone(audio))
    await room.local_participant.publish_track(
        rtc.LocalVideoTrack.create_video_track("camera", video),
        rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA, video_codec=rtc.VideoCodec.VP8),
    )
    await room.local_participant.publish_track(
        rtc.LocalAudioTrack.create_audio_track("microphone", audio),
        rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE),
    )
    if room.remote_participants:
        on_participant(next(iter(room.remote_participants.values())))

    await asyncio.sleep(options["seconds"])
    say("summary", **received.values())
    await room.disconnect()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
    except Exception as error:  # the test shows the reason
        say("error", message=f"{type(error).__name__}: {error}")
        sys.exit(1)
