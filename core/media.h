/* The pool's on-media format, version 5: every struct that stands in a pool, and nothing else.
 *
 * All integers are little-endian; all structs are line-sized or line-aligned; a CRC field covers
 * its whole struct with the field itself as zero, unless its comment says otherwise. Sizes and
 * offsets are asserted in media_check.c. Prose: docs/FORMAT.md.
 *
 *   0                superblock, and its copy at 4096
 *   slot_base + i*slot_stride, for each slot i (one broker, one host, one writer):
 *     +0             4 lines: claim, heartbeat, watermark, synced watermark
 *     +4096, +8192   checkpoint roots A and B
 *     +12288         pending rings: `producers` rings of `descriptors` records
 *     then           index ring: `index_entries` records; record number n stands at n % entries
 *     +slot_stride, less 3 pages: copies of the roots A and B, in a page each; in the last page
 *                    the second watermark and synced watermark, at +128 and +192
 *   data_base        blocks of 2^block_shift bytes, handed out as power-of-two extents, each
 *                    aligned to its size relative to data_base
 */
#ifndef CORE_MEDIA_H
#define CORE_MEDIA_H

#include "core/le.h"

#define MEDIA_LINE      64u
#define MEDIA_PAGE      4096u
#define MEDIA_MAGIC     "EMBARFS" /* with its NUL: 8 bytes */
#define MEDIA_VERSION   5u
#define MEDIA_SUPER_AT  0u
#define MEDIA_SUPER_ALT 4096u

#define MEDIA_COMPAT_KNOWN   0ull
#define MEDIA_INCOMPAT_KNOWN 0ull
#define MEDIA_ROCOMPAT_KNOWN 0ull

#define MEDIA_MAX_BATCH    (16u << 20) /* payload bytes a batch */
#define MEDIA_MAX_MESSAGES 65536u      /* messages a batch */
#define MEDIA_MAX_NAME     255u        /* bytes a name component */
#define MEDIA_MAX_PATH     1024u       /* bytes a path */
#define MEDIA_MAX_SLOTS    64u
#define MEDIA_WINDOW       1024u /* batches of a session above its mark that may be committed */

enum media_durability { MEDIA_DURABLE_PROCESS = 0, MEDIA_DURABLE_MACHINE = 1 };

/* Superblock: written when the pool is made or restored, never while it is served. */
struct media_super {
    uint8_t magic[8];    /*   0..7   */
    le32 version;        /*   8..11  */
    le32 crc;            /*  12..15  */
    le64 compat;         /*  16..23  unknown bits: use it anyway */
    le64 incompat;       /*  24..31  unknown bits: refuse */
    le64 ro_compat;      /*  32..39  unknown bits: open for reading only */
    uint8_t uuid[16];    /*  40..55  identity, kept over restores */
    le64 incarnation;    /*  56..63  raised by each restore */
    le64 size;           /*  64..71  pool bytes */
    le32 line;           /*  72..75  64 */
    le32 slots;          /*  76..79  */
    le32 producers;      /*  80..83  pending rings a slot */
    le32 descriptors;    /*  84..87  records a pending ring, a power of two */
    le64 index_entries;  /*  88..95  records an index ring, a power of two */
    le64 slot_base;      /*  96..103 */
    le64 slot_stride;    /* 104..111 */
    le64 data_base;      /* 112..119 */
    le64 data_size;      /* 120..127 */
    le32 block_shift;    /* 128..131 log2 of the smallest extent */
    le32 max_order;      /* 132..135 log2 of the largest extent, in blocks */
    le32 regions;        /* 136..139 data area is granted to slots in this many equal parts */
    le32 brokers;        /* 140..143 brokers the pool was laid out for (share of regions) */
    le64 created;        /* 144..151 CLOCK_REALTIME ns */
    uint8_t boot_id[16]; /* 152..167 of the host that made it */
    le32 durability;     /* 168..171 enum media_durability, as chosen at creation */
    uint8_t secret[8];   /* 172..179 random; of this pool alone, told to nobody: see media_side */
    uint8_t zero[76];    /* 180..255 */
};

/* A slot's claim: who serves it. Rewritten at each open; a term is one open. */
struct media_claim {
    le32 magic;          /*  0..3  MEDIA_CLAIM_MAGIC */
    le32 crc;            /*  4..7  */
    le32 term;           /*  8..11 */
    le32 pid;            /* 12..15 0: closed cleanly */
    uint8_t host[16];    /* 16..31 machine id */
    uint8_t boot_id[16]; /* 32..47 */
    le64 start;          /* 48..55 number of the term's first entry */
    le64 time;           /* 56..63 no batch of the term was announced before it */
};
#define MEDIA_CLAIM_MAGIC 0x4d4c4343u

struct media_heartbeat {
    le64 beat;        /*  0..7  */
    le64 time;        /*  8..15 */
    le32 term;        /* 16..19 */
    le32 crc;         /* 20..23 */
    uint8_t zero[40]; /* 24..63 */
};

/* All entries up to and including `number` are durable (watermark: in the sense of flush+drain;
 * synced watermark: a file pool's fdatasync, meaningful only across boots). Of each there are two
 * lines, written in turn: the larger number counts. */
struct media_watermark {
    le64 number;         /*  0..7  */
    le32 term;           /*  8..11 */
    le32 crc;            /* 12..15 */
    uint8_t boot_id[16]; /* 16..31 */
    le32 chain;          /* 32..35 crc of entry `number`, or 0: not told */
    uint8_t zero[28];    /* 36..63 */
};

enum media_kind {
    MEDIA_NONE = 0,
    MEDIA_BATCH = 1,   /* a batch of a topic */
    MEDIA_CONTROL = 2, /* topic 0: the payload is one struct media_control */
    MEDIA_TERM = 3,    /* first entry of a term: no payload; session = host's slot */
    MEDIA_GRANT =
        5, /* regions [offset, offset + sequence) are slot `session`'s to fill; no payload */
    MEDIA_PART = 4, /* second part of the batch of the entry before it (MEDIA_F_SPLIT) */
    MEDIA_MOVE =
        6, /* the run of `topic` at `offset`, of so many bytes, stands at `payload` now, with
                     * its first side record at `side` (0: it is a second part and has none);
                     * `order` of the extent; the count is of its batches */
};

#define MEDIA_F_SPLIT                                                                              \
    0x01u                   /* length is of the first part; the next entry is MEDIA_PART. An entry
                             * says all that the fold needs, since the side records of batches that
                             * were trimmed later are gone. One without the other is not committed */
#define MEDIA_F_EQUAL 0x02u /* all messages have length/count bytes; no lengths follow */
#define MEDIA_F_LATE  0x04u /* its record's time is before that of an earlier batch of its topic */
#define MEDIA_F_FIFO  0x08u /* of a side record: its topic was at order 5 when it was announced */

/* An index entry, and a pending descriptor: one self-validating line.
 * Entry:      `number` is the global entry number, `crc` is chained: CRC32C of the line with crc
 *             as zero, seeded by the previous entry's crc.
 * Descriptor: `number` is its absolute position in the ring plus one, stored last (the commit
 *             word); `crc` is seeded by 0 and covers the line with number and crc as given/zero. */
struct media_entry {
    le64 number;   /*  0..7  never 0 */
    le32 term;     /*  8..11 */
    le32 crc;      /* 12..15 */
    le64 session;  /* 16..23 low 48: 0: none; high 16: with one, the side record's CRC, low bits */
    le64 offset;   /* 24..31 log offset of the first payload byte in the topic */
    le64 payload;  /* 32..39 low 48: pool offset of the payload; high 16: sequence bits 32..47 */
    le64 side;     /* 40..47 low 48: pool offset of the side record; high 16: messages - 1 */
    le32 topic;    /* 48..51 */
    le32 length;   /* 52..55 payload bytes (of this part) */
    le32 sequence; /* 56..59 session sequence bits 0..31; without a session the side record's CRC */
    uint8_t kind;  /* 60     enum media_kind */
    uint8_t flags; /* 61     MEDIA_F_... */
    uint8_t slot;  /* 62     whose lines hold payload and side record */
    uint8_t order; /* 63     log2 blocks of the payload's extent; its start follows by alignment */
};

/* A batch's side record: this header, and unless MEDIA_F_EQUAL le32 lengths[count], which stand
 * right below it: they begin at header - roundup(4 * count, 64). Side records grow down from the
 * top of the extent in which the payload begins, line-aligned, so that from one header the next
 * one down is found without an index. A payload may hold anything, so that nobody can write into one
 * what passes for a record, magic and crc go by the pool's secret. */
struct media_side {
    le32 magic;       /*  0..3  MEDIA_SIDE_MAGIC, xor the upper half of the secret */
    le32 crc;         /*  4..7  of header (crc as zero) and lengths, seeded by the lower half */
    le64 time;        /*  8..15 broker's CLOCK_REALTIME ns when the batch was whole; after
                        * anything whose commit was through then */
    le32 topic;       /* 16..19 */
    le32 payload_crc; /* 20..23 CRC32C of the payload */
    le64 session;     /* 24..31 low 48: session, 0: none; high 16: `after`, bits 0..15 */
    le64 sequence;    /* 32..39 low 48: sequence; without a session its producer: the pending ring
                        * + 1, 0: the sequencer. Then MEDIA_F_..., 8 bits, and `after`, bits 16..23.
                        * `after`: an entry that stood when it was announced, so that its own
                        * comes behind; MEDIA_AFTER_BITS low bits of that number */
    le64 run0;        /* 40..47 low 48: pool offset; high 16: messages - 1 */
    le64 run1;        /* 48..55 low 48: pool offset, 0 if none; high 16: order0 | order1 << 8 */
    le32 run0_length; /* 56..59 */
    le32 length;      /* 60..63 payload bytes in all */
};
#define MEDIA_SIDE_MAGIC 0x45444953u
#define MEDIA_AFTER_BITS 24u

enum media_control_kind {
    MEDIA_C_MKDIR = 1,  /* id, parent, name, mode, uid, gid, time */
    MEDIA_C_CREATE = 2, /* the same for a topic; order, ack, value, value2, policy */
    MEDIA_C_REMOVE = 3, /* id: topic or empty directory; time */
    MEDIA_C_RENAME = 4, /* id, parent, name: new place; value: id replaced or 0; time */
    MEDIA_C_ATTR =
        5, /* id, altered; flags say which of mode, uid, gid, order, ack, value.. are set */
    MEDIA_C_TRIM = 6, /* id, altered; value: new base offset; value2: number of the message there */
    MEDIA_C_OPEN = 7, /* session: id = topic, uid = principal; its id is the entry's number */
    MEDIA_C_FENCE = 8, /* session: value = session id, epoch: the new one */
    MEDIA_C_CLOSE = 9, /* session: value = session id */
};

#define MEDIA_A_MODE  0x0001u
#define MEDIA_A_OWNER 0x0002u
#define MEDIA_A_GROUP 0x0004u
#define MEDIA_A_ORDER 0x0008u
#define MEDIA_A_ACK   0x0010u
#define MEDIA_A_BYTES 0x0020u /* retention bytes in value */
#define MEDIA_A_AGE   0x0040u /* retention age (ns) in value2 */
#define MEDIA_A_FULL  0x0080u /* policy when full in `policy` */
#define MEDIA_A_TIMES 0x0100u /* mtime in time */

/* A control action: the payload of one MEDIA_CONTROL entry. name_length bytes follow. */
struct media_control {
    le16 kind;        /*  0..1  enum media_control_kind */
    le16 name_length; /*  2..3  */
    le32 id;          /*  4..7  */
    le32 parent;      /*  8..11 */
    le32 mode;        /* 12..15 */
    le32 uid;         /* 16..19 owner, or a session's principal */
    le32 gid;         /* 20..23 */
    le16 flags;       /* 24..25 MEDIA_A_... */
    uint8_t order;    /* 26     0, 2 or 5 */
    uint8_t ack;      /* 27     */
    le32 epoch;       /* 28..31 */
    le64 value;       /* 32..39 */
    le64 value2;      /* 40..47 */
    le64 time;        /* 48..55 */
    uint8_t policy;   /* 56     0: block, 1: trim */
    uint8_t zero[7];  /* 57..63 */
    le64 altered;     /* 64..71 when it was done, where `time` does not say so */
    /* For a checker, should the index be damaged around it. */
    le64 number;   /* 72..79 of its entry */
    le64 end;      /* 80..87 TRIM: where the topic ended before this entry */
    le64 messages; /* 88..95 TRIM: how many it had had by then */
};

/* A checkpoint root: one of the two areas of a slot. It names the newest piece of a manifest. */
struct media_root {
    le32 magic;        /*   0..3   MEDIA_ROOT_MAGIC */
    le32 crc;          /*   4..7   */
    le64 number;       /*   8..15  the fold of all entries up to this one */
    le32 term;         /*  16..19  */
    le32 chain;        /*  20..23  crc of entry `number` */
    le64 generation;   /*  24..31  the larger of the two valid roots of a slot is the newer */
    le64 manifest;     /*  32..39  low 48: pool offset; high 16: order of its extent */
    le32 manifest_crc; /*  40..43  the piece's */
    le32 next_id;      /*  44..47  topic and directory ids below this were used */
    le64 control_end;  /*  48..55  end of topic 0 */
    le32 nodes;        /*  56..59  in all, as are the next two */
    le32 sessions;     /*  60..63  */
    le32 grants;       /*  64..67  */
    le32 pieces;       /*  68..71  of the manifest */
    le64 time;         /*  72..79  */
    le64 clock;        /*  80..87  largest index time of all topics so far */
    uint8_t zero[40];  /*  88..127 */
};
#define MEDIA_ROOT_MAGIC 0x544f4f52u

/* A piece of a manifest, in an extent of its own, at its begin and once more at its middle: this header, then `grants` struct media_grant,
 * `gone_nodes` and `gone_sessions` le64 ids, `sessions` struct media_session, `ahead` struct
 * media_ahead, `nodes` struct media_node with their names. It tells what changed since the pieces before it; of what is told
 * of twice the newest holds, and what is gone stands in older pieces only. */
struct media_manifest {
    le32 magic;         /*  0..3  MEDIA_MANIFEST_MAGIC */
    le32 crc;           /*  4..7  of header (crc as zero) and records */
    le64 before;        /*  8..15 low 48: extent of the piece before it, 0: none; high 16: order */
    le32 before_crc;    /* 16..19 its crc */
    le32 depth;         /* 20..23 pieces before it */
    le64 generation;    /* 24..31 of the checkpoint that wrote it */
    le32 size;          /* 32..35 bytes of records */
    le32 grants;        /* 36..39 */
    le32 gone_nodes;    /* 40..43 */
    le32 gone_sessions; /* 44..47 */
    le32 sessions;      /* 48..51 */
    le32 nodes;         /* 52..55 */
    le32 ahead;         /* 56..59 */
    le32 zero;          /* 60..63 */
};
#define MEDIA_MANIFEST_MAGIC 0x494e414du

/* A run: batches of a topic whose payloads are adjacent and whose side records are. Its length is
 * the next run's offset (or the topic's end) less its own. */
struct media_run {
    le64 offset;  /*  0..7  log offset */
    le64 message; /*  8..15 number of its first message */
    le64 payload; /* 16..23 low 48: pool offset; low byte of high 16: order; high byte: flags */
    le64 side; /* 24..31 low 48: first side record; high 16: batches (0: second part of a split) */
};

/* What fsck noted, so that a topic keeps its log offsets around damage: reads of such a run answer
 * EIO. Each stands in a run of its own, which never grows. */
#define MEDIA_RUN_DAMAGED 0x01u /* it stands where it was, and fails its checksums */
#define MEDIA_RUN_LOST    0x02u /* nothing stands for these offsets: no place (payload, side 0) */
#define MEDIA_RUN_FLAGS   (MEDIA_RUN_DAMAGED | MEDIA_RUN_LOST)
/* Its first batch is MEDIA_F_LATE: a search by time goes by an earlier run. */
#define MEDIA_RUN_LATE 0x04u
/* A second part that was moved: its batch's side record says where it stood before. */
#define MEDIA_RUN_MOVED 0x08u

/* A piece of a topic's run table, in an extent of its own, at its begin and once more at its middle:
 * this header, then `count` runs. */
struct media_table {
    le32 magic;      /*  0..3  MEDIA_TABLE_MAGIC */
    le32 crc;        /*  4..7  of header (crc as zero) and runs */
    le64 before;     /*  8..15 low 48: extent of the piece before it, 0: none; high 16: order */
    le32 before_crc; /* 16..19 its crc */
    le32 count;      /* 20..23 at least one */
    le64 first;      /* 24..31 number of its first run, over all runs that the topic ever had */
};
#define MEDIA_TABLE_MAGIC 0x4c424154u

/* A topic or directory in a manifest. name_length bytes follow, padded to 8. */
struct media_node {
    le32 id;               /*   0..3   */
    le32 parent;           /*   4..7   0: the root directory */
    le32 mode;             /*   8..11  S_IFREG or S_IFDIR with permissions */
    le32 uid;              /*  12..15  */
    le32 gid;              /*  16..19  */
    le16 name_length;      /*  20..21  */
    uint8_t order;         /*  22      */
    uint8_t ack;           /*  23      */
    le64 base;             /*  24..31  oldest retained offset */
    le64 end;              /*  32..39  */
    le64 messages;         /*  40..47  messages ever */
    le64 first;            /*  48..55  number of the first retained message */
    le64 created;          /*  56..63  */
    le64 modified;         /*  64..71  time of the last commit, unless it was set */
    le64 keep_bytes;       /*  72..79  retention, 0: no bound */
    le64 keep_age;         /*  80..87  ns, 0: no bound */
    le64 side_tail;        /*  88..95  last batch's side record: low 48: header; high 16: lines
                            *          below it. 0: the next batch begins a run, elsewhere */
    le64 table;            /*  96..103 low 48: newest piece of its run table, 0: none; high 16:
                            *          order. It ends with the last run but one */
    le32 table_crc;        /* 104..107 the piece's */
    le32 run_count;        /* 108..111 live runs, with the last */
    le64 run_first;        /* 112..119 number of the first live run */
    struct media_run last; /* 120..151 the last run */
    le64 time;             /* 152..159 index time: the largest of its batches so far */
    uint8_t policy;        /* 160      */
    uint8_t zero[7];       /* 161..167 */
    le64 altered;          /* 168..175 last change of name, attributes, base or entries */
};

struct media_session {
    le64 id;        /*  0..7  */
    le32 topic;     /*  8..11 */
    le32 epoch;     /* 12..15 */
    le64 sequence;  /* 16..23 the mark: all batches up to it are committed */
    le64 messages;  /* 24..31 in the batches up to the mark */
    le64 time;      /* 32..39 of the last commit */
    le32 principal; /* 40..43 */
    le32 flags;     /* 44..47 */
};

/* A committed batch above its session's mark. */
struct media_ahead {
    le64 session;  /*  0..7  */
    le32 above;    /*  8..11 its sequence less the mark: 2..MEDIA_WINDOW */
    le32 messages; /* 12..15 in it */
};

struct media_grant {
    le32 first; /* 0..3 region */
    le32 count; /* 4..7 */
    le32 slot;  /* 8..11 */
    le32 zero;  /* 12..15 */
};

#endif
