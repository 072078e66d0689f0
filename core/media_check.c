/* Proof at compile time that the structs of media.h stand on the media as their comments say:
 * every field's offset and width, no hole between fields, none at the end. Serves no step at run
 * time; must never hold code.
 */
#include "core/media.h"

#include <stddef.h>

/* `field` is `width` bytes at byte `at`. */
#define AT(type, field, at, width)                                                                 \
    _Static_assert(offsetof(struct type, field) == (at), #type "." #field " has moved");           \
    _Static_assert(sizeof(((struct type *)0)->field) == (width), #type "." #field " has changed")
#define SIZE(type, bytes) _Static_assert(sizeof(struct type) == (bytes), #type " has padding")

AT(media_super, magic, 0, 8);
AT(media_super, version, 8, 4);
AT(media_super, crc, 12, 4);
AT(media_super, compat, 16, 8);
AT(media_super, incompat, 24, 8);
AT(media_super, ro_compat, 32, 8);
AT(media_super, uuid, 40, 16);
AT(media_super, incarnation, 56, 8);
AT(media_super, size, 64, 8);
AT(media_super, line, 72, 4);
AT(media_super, slots, 76, 4);
AT(media_super, producers, 80, 4);
AT(media_super, descriptors, 84, 4);
AT(media_super, index_entries, 88, 8);
AT(media_super, slot_base, 96, 8);
AT(media_super, slot_stride, 104, 8);
AT(media_super, data_base, 112, 8);
AT(media_super, data_size, 120, 8);
AT(media_super, block_shift, 128, 4);
AT(media_super, max_order, 132, 4);
AT(media_super, regions, 136, 4);
AT(media_super, brokers, 140, 4);
AT(media_super, created, 144, 8);
AT(media_super, boot_id, 152, 16);
AT(media_super, durability, 168, 4);
AT(media_super, secret, 172, 8);
AT(media_super, zero, 180, 76);
SIZE(media_super, 256);

AT(media_claim, magic, 0, 4);
AT(media_claim, crc, 4, 4);
AT(media_claim, term, 8, 4);
AT(media_claim, pid, 12, 4);
AT(media_claim, host, 16, 16);
AT(media_claim, boot_id, 32, 16);
AT(media_claim, start, 48, 8);
AT(media_claim, time, 56, 8);
SIZE(media_claim, 64);

AT(media_heartbeat, beat, 0, 8);
AT(media_heartbeat, time, 8, 8);
AT(media_heartbeat, term, 16, 4);
AT(media_heartbeat, crc, 20, 4);
AT(media_heartbeat, zero, 24, 40);
SIZE(media_heartbeat, 64);

AT(media_watermark, number, 0, 8);
AT(media_watermark, term, 8, 4);
AT(media_watermark, crc, 12, 4);
AT(media_watermark, boot_id, 16, 16);
AT(media_watermark, chain, 32, 4);
AT(media_watermark, zero, 36, 28);
SIZE(media_watermark, 64);

AT(media_entry, number, 0, 8);
AT(media_entry, term, 8, 4);
AT(media_entry, crc, 12, 4);
AT(media_entry, session, 16, 8);
AT(media_entry, offset, 24, 8);
AT(media_entry, payload, 32, 8);
AT(media_entry, side, 40, 8);
AT(media_entry, topic, 48, 4);
AT(media_entry, length, 52, 4);
AT(media_entry, sequence, 56, 4);
AT(media_entry, kind, 60, 1);
AT(media_entry, flags, 61, 1);
AT(media_entry, slot, 62, 1);
AT(media_entry, order, 63, 1);
SIZE(media_entry, 64);

AT(media_side, magic, 0, 4);
AT(media_side, crc, 4, 4);
AT(media_side, time, 8, 8);
AT(media_side, topic, 16, 4);
AT(media_side, payload_crc, 20, 4);
AT(media_side, session, 24, 8);
AT(media_side, sequence, 32, 8);
AT(media_side, run0, 40, 8);
AT(media_side, run1, 48, 8);
AT(media_side, run0_length, 56, 4);
AT(media_side, length, 60, 4);
SIZE(media_side, 64);

AT(media_control, kind, 0, 2);
AT(media_control, name_length, 2, 2);
AT(media_control, id, 4, 4);
AT(media_control, parent, 8, 4);
AT(media_control, mode, 12, 4);
AT(media_control, uid, 16, 4);
AT(media_control, gid, 20, 4);
AT(media_control, flags, 24, 2);
AT(media_control, order, 26, 1);
AT(media_control, ack, 27, 1);
AT(media_control, epoch, 28, 4);
AT(media_control, value, 32, 8);
AT(media_control, value2, 40, 8);
AT(media_control, time, 48, 8);
AT(media_control, policy, 56, 1);
AT(media_control, zero, 57, 7);
AT(media_control, altered, 64, 8);
AT(media_control, number, 72, 8);
AT(media_control, end, 80, 8);
AT(media_control, messages, 88, 8);
SIZE(media_control, 96);

AT(media_root, magic, 0, 4);
AT(media_root, crc, 4, 4);
AT(media_root, number, 8, 8);
AT(media_root, term, 16, 4);
AT(media_root, chain, 20, 4);
AT(media_root, generation, 24, 8);
AT(media_root, manifest, 32, 8);
AT(media_root, manifest_crc, 40, 4);
AT(media_root, next_id, 44, 4);
AT(media_root, control_end, 48, 8);
AT(media_root, nodes, 56, 4);
AT(media_root, sessions, 60, 4);
AT(media_root, grants, 64, 4);
AT(media_root, pieces, 68, 4);
AT(media_root, time, 72, 8);
AT(media_root, clock, 80, 8);
AT(media_root, zero, 88, 40);
SIZE(media_root, 128);

AT(media_manifest, magic, 0, 4);
AT(media_manifest, crc, 4, 4);
AT(media_manifest, before, 8, 8);
AT(media_manifest, before_crc, 16, 4);
AT(media_manifest, depth, 20, 4);
AT(media_manifest, generation, 24, 8);
AT(media_manifest, size, 32, 4);
AT(media_manifest, grants, 36, 4);
AT(media_manifest, gone_nodes, 40, 4);
AT(media_manifest, gone_sessions, 44, 4);
AT(media_manifest, sessions, 48, 4);
AT(media_manifest, nodes, 52, 4);
AT(media_manifest, ahead, 56, 4);
AT(media_manifest, zero, 60, 4);
SIZE(media_manifest, 64);

AT(media_run, offset, 0, 8);
AT(media_run, message, 8, 8);
AT(media_run, payload, 16, 8);
AT(media_run, side, 24, 8);
SIZE(media_run, 32);

AT(media_table, magic, 0, 4);
AT(media_table, crc, 4, 4);
AT(media_table, before, 8, 8);
AT(media_table, before_crc, 16, 4);
AT(media_table, count, 20, 4);
AT(media_table, first, 24, 8);
SIZE(media_table, 32);

AT(media_node, id, 0, 4);
AT(media_node, parent, 4, 4);
AT(media_node, mode, 8, 4);
AT(media_node, uid, 12, 4);
AT(media_node, gid, 16, 4);
AT(media_node, name_length, 20, 2);
AT(media_node, order, 22, 1);
AT(media_node, ack, 23, 1);
AT(media_node, base, 24, 8);
AT(media_node, end, 32, 8);
AT(media_node, messages, 40, 8);
AT(media_node, first, 48, 8);
AT(media_node, created, 56, 8);
AT(media_node, modified, 64, 8);
AT(media_node, keep_bytes, 72, 8);
AT(media_node, keep_age, 80, 8);
AT(media_node, side_tail, 88, 8);
AT(media_node, table, 96, 8);
AT(media_node, table_crc, 104, 4);
AT(media_node, run_count, 108, 4);
AT(media_node, run_first, 112, 8);
AT(media_node, last, 120, 32);
AT(media_node, time, 152, 8);
AT(media_node, policy, 160, 1);
AT(media_node, zero, 161, 7);
AT(media_node, altered, 168, 8);
SIZE(media_node, 176);

AT(media_session, id, 0, 8);
AT(media_session, topic, 8, 4);
AT(media_session, epoch, 12, 4);
AT(media_session, sequence, 16, 8);
AT(media_session, messages, 24, 8);
AT(media_session, time, 32, 8);
AT(media_session, principal, 40, 4);
AT(media_session, flags, 44, 4);
SIZE(media_session, 48);

AT(media_ahead, session, 0, 8);
AT(media_ahead, above, 8, 4);
AT(media_ahead, messages, 12, 4);
SIZE(media_ahead, 16);

AT(media_grant, first, 0, 4);
AT(media_grant, count, 4, 4);
AT(media_grant, slot, 8, 4);
AT(media_grant, zero, 12, 4);
SIZE(media_grant, 16);

/* What must not tear is one line; what is an array on the media keeps its alignment. */
_Static_assert(sizeof(struct media_claim) == MEDIA_LINE, "a claim is one line");
_Static_assert(sizeof(struct media_heartbeat) == MEDIA_LINE, "a heartbeat is one line");
_Static_assert(sizeof(struct media_watermark) == MEDIA_LINE, "a watermark is one line");
_Static_assert(sizeof(struct media_entry) == MEDIA_LINE, "an entry is one line");
_Static_assert(sizeof(struct media_side) == MEDIA_LINE, "a side record's header is one line");
_Static_assert(sizeof(struct media_super) <= MEDIA_SUPER_ALT, "the superblocks do not overlap");
_Static_assert(sizeof(struct media_root) <= MEDIA_PAGE, "a root fits its area");
_Static_assert(sizeof(struct media_node) % 8 == 0 && sizeof(struct media_session) % 8 == 0 &&
                   sizeof(struct media_ahead) % 8 == 0 && sizeof(struct media_grant) % 8 == 0 &&
                   sizeof(struct media_run) % 8 == 0,
               "manifest records keep each other aligned");
_Static_assert(sizeof(MEDIA_MAGIC) == 8, "the magic is 8 bytes with its NUL");
