"""Walks through the RoomService with livekit-api while a guest is in the room, and checks what the guest notices.

Options come as JSON in the environment variable OPTIONS; each step that held prints one JSON line.
"""

import asyncio
import json
import os
from collections.abc import Callable

from livekit import api, rtc
from livekit.protocol import models, room as proto

ROOM = "administered"


def done(step: str) -> None:
    print(json.dumps({"step": step}), flush=True)


async def until(condition: Callable[[], bool], what: str, seconds: float = 10) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"after {seconds} s still not: {what}")
        await asyncio.sleep(0.05)


async def refused(call: object, status: int) -> None:
    try:
        await call  # type: ignore[misc]
    except api.TwirpError as error:
        assert error.status == status, f"{error.status} {error.code}: {error.message}"
        return
    raise AssertionError("the call was not refused")


async def main() -> None:
    options = json.loads(os.environ["OPTIONS"])
    token = (
        api.AccessToken(options["api_key"], options["api_secret"])
        .with_identity("guest")
        .with_name("Guest")
        .with_grants(api.VideoGrants(room_join=True, room=ROOM))
        .to_jwt()
    )
    lk = api.LiveKitAPI(options["http"], options["api_key"], options["api_secret"])
    guest = rtc.Room()
    try:
        made = await lk.room.create_room(
            proto.CreateRoomRequest(name=ROOM, empty_timeout=60, max_participants=5, metadata="made by a test")
        )
        assert made.name == ROOM and made.sid.startswith("RM_"), made
        assert made.max_participants == 5 and made.metadata == "made by a test", made
        again = await lk.room.create_room(proto.CreateRoomRequest(name=ROOM))
        assert again.sid == made.sid, "creating a room that exists must give that room"
        done("create_room")

        data: list[bytes] = []
        gone: list[object] = []
        guest.on("data_received", lambda packet: data.append(packet.data))
        guest.on("disconnected", lambda reason: gone.append(reason))
        encryption = rtc.E2EEOptions(
            key_provider_options=rtc.KeyProviderOptions(shared_key=options["key"].encode())
        )
        await guest.connect(options["ws"], token, rtc.RoomOptions(encryption=encryption, connect_timeout=10))
        source = rtc.AudioSource(48_000, 1)
        publication = await guest.local_participant.publish_track(
            rtc.LocalAudioTrack.create_audio_track("microphone", source),
            rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE),
        )

        rooms = (await lk.room.list_rooms(proto.ListRoomsRequest())).rooms
        mine = [room for room in rooms if room.name == ROOM]
        assert len(mine) == 1 and mine[0].num_participants == 1, rooms
        named = (await lk.room.list_rooms(proto.ListRoomsRequest(names=["no-such-room"]))).rooms
        assert len(named) == 0, named
        done("list_rooms")

        people = (await lk.room.list_participants(proto.ListParticipantsRequest(room=ROOM))).participants
        assert [person.identity for person in people] == ["guest"], people
        assert people[0].state == models.ParticipantInfo.ACTIVE, people[0]
        done("list_participants")

        who = proto.RoomParticipantIdentity(room=ROOM, identity="guest")
        # The SDK says "published" before the descriptions that carry the track are exchanged.
        for _ in range(50):
            person = await lk.room.get_participant(who)
            if person.tracks:
                break
            await asyncio.sleep(0.1)
        assert person.name == "Guest", person
        tracks = [track for track in person.tracks if track.sid == publication.sid]
        assert len(tracks) == 1 and tracks[0].encryption == models.Encryption.GCM, person.tracks
        await refused(
            lk.room.get_participant(proto.RoomParticipantIdentity(room=ROOM, identity="nobody")), 404
        )
        done("get_participant")

        reply = await lk.room.mute_published_track(
            proto.MuteRoomTrackRequest(room=ROOM, identity="guest", track_sid=publication.sid, muted=True)
        )
        assert reply.track.muted, reply
        person = await lk.room.get_participant(who)
        assert [track.muted for track in person.tracks if track.sid == publication.sid] == [True], person.tracks
        done("mute_published_track")

        await lk.room.update_subscriptions(
            proto.UpdateSubscriptionsRequest(
                room=ROOM, identity="guest", track_sids=[publication.sid], subscribe=False
            )
        )
        done("update_subscriptions")

        updated = await lk.room.update_participant(
            proto.UpdateParticipantRequest(
                room=ROOM, identity="guest", name="Dr Guest", metadata="seen", attributes={"role": "patient"}
            )
        )
        assert updated.name == "Dr Guest" and updated.metadata == "seen", updated
        await until(lambda: guest.local_participant.name == "Dr Guest", "the guest knows its new name")
        await until(lambda: guest.local_participant.attributes.get("role") == "patient", "and its attribute")
        done("update_participant")

        await asyncio.sleep(1)
        await lk.room.send_data(
            proto.SendDataRequest(room=ROOM, data=b"from the backend", kind=models.DataPacket.Kind.RELIABLE)
        )
        await until(lambda: b"from the backend" in data, "the guest got the backend's message")
        done("send_data")

        changed = await lk.room.update_room_metadata(
            proto.UpdateRoomMetadataRequest(room=ROOM, metadata="changed")
        )
        assert changed.metadata == "changed", changed
        await until(lambda: guest.metadata == "changed", "the guest knows the room's metadata")
        done("update_room_metadata")

        other = api.LiveKitAPI(options["http"], options["api_key"], "not-the-secret-but-just-as-long-0123456789")
        try:
            await refused(other.room.list_rooms(proto.ListRoomsRequest()), 401)
        finally:
            await other.aclose()
        done("forbidden")

        await lk.room.remove_participant(who)
        await until(lambda: len(gone) > 0, "the guest was put out")
        people = (await lk.room.list_participants(proto.ListParticipantsRequest(room=ROOM))).participants
        assert len(people) == 0, people
        done("remove_participant")

        await lk.room.delete_room(proto.DeleteRoomRequest(room=ROOM))
        rooms = (await lk.room.list_rooms(proto.ListRoomsRequest(names=[ROOM]))).rooms
        assert len(rooms) == 0, rooms
        done("delete_room")
    finally:
        await guest.disconnect()
        await lk.aclose()


if __name__ == "__main__":
    try:
        asyncio.run(asyncio.wait_for(main(), 80))
    except Exception as error:  # the test shows the reason
        print(json.dumps({"finding": "error", "message": f"{type(error).__name__}: {error}"}), flush=True)
        raise
