/*
 * What the protocol in ownership.pml stands on: the sizes, the disk, the kernel's locks, death and power loss, and what
 * is asserted after every step. Included by ownership.pml; to be read after its opening comment.
 */

#ifndef PROCESSES
#define PROCESSES 2
#endif
#ifndef ENTRIES
#define ENTRIES 2
#endif
#ifndef SAVES
#define SAVES 1
#endif
#ifndef LOSSES
#define LOSSES 0
#endif
#ifndef WAITS
#define WAITS 0
#endif
#ifndef KEYS
#define KEYS 0
#endif

/* ---- The disk ------------------------------------------------------------------------------------------------- */

#define NONE 0
#define TORN 255

/* Where metadata can be: in a queue, in its `.checkout`, in its `.waiting`, or in `.tmp`, which is no place. */
#define A 0
#define B 1
#define CHECKED_OUT(queue) ((queue) + 2)
#define WAITING(queue) ((queue) + 4)
#define QUEUE_OF(place) ((place) % 2)
#define TMP 6
byte file[7];

#define METADATA(entry, version) ((entry) * 8 + (version))
#define ENTRY_OF(metadata) ((metadata) / 8)
#define VERSION_OF(metadata) ((metadata) % 8)

byte data;     /* `.data/N`: the number of the entry that it belongs to, NONE or TORN */
byte registry; /* `.registry/N`: LINKED or NONE */
byte key;      /* `.keys/N`: NONE, TORN, or one of these, by its time: 0, one that is to come, and one that has passed */
#define BLANK 1
#define TO_COME 2
#define PASSED 3

/* ---- The kernel: who has which registry file open, and who holds the lock of each inode ----------------------- */

/* An inode is LINKED as long as the name leads to it; then it gets a number above, for as long as it is open. */
#define LINKED 1
#define INODES (PROCESSES + 3)
#define NOBODY 0
#define ME (me + 1)
byte fd[PROCESSES];
byte holder[INODES];

/* ---- What only the checks know ---------------------------------------------------------------------------------- */

byte live;     /* the entry whose enqueue was committed and whose remove was not, or NONE */
byte saved;    /* the version of the last committed save of it */
byte owner;    /* who was told that the entry is checked out, and has not settled it */
byte entries;  /* how many enqueues have begun to write */
byte versions; /* how many saves have */
byte busy;     /* how many processes are doing something */
byte losses;   /* how often the power failed */
byte stale;    /* where power loss left an older copy, plus one; or NONE */
byte asked;    /* was the live entry enqueued with `remember=`? */
byte kept;     /* was the removal of such an entry committed, and has its time not passed? */
byte passings; /* how often the time of the key has passed */
hidden byte other; hidden byte inode; /* within one step */
byte over;     /* 0 while processes run and die; then the last recovery's 1: recover, 2: sweep, 3: forget, 4: look */

/* A violated promise is reported by its name. */
#define PROMISE(name, condition) name = (condition); assert(name);
hidden byte in_exactly_one_place, metadata_is_whole, no_acknowledged_save_is_undone, data_is_there;
hidden byte reservation_is_there, owner_keeps_it, one_owner, read_is_taken, no_file_is_in_the_way;
hidden byte all_is_available_again, nothing_is_left, a_remembered_name_is_not_used, what_is_done_is_remembered;
hidden byte only_what_is_done_is_remembered;

#define COUNTS(place) (file[place] != NONE && stale != (place) + 1)
#define COPIES (COUNTS(A) + COUNTS(B) + COUNTS(CHECKED_OUT(A)) + COUNTS(CHECKED_OUT(B)) + COUNTS(WAITING(A)) + COUNTS(WAITING(B)))
#define IN_EVERY_PLACE(property) (property(A) && property(B) && property(CHECKED_OUT(A)) && property(CHECKED_OUT(B)) \
    && property(WAITING(A)) && property(WAITING(B)))
#define IS_WHOLE(place) (!COUNTS(place) || (file[place] != TORN && ENTRY_OF(file[place]) == live))
#define IS_CURRENT(place) (!COUNTS(place) || VERSION_OF(file[place]) >= saved)
#define HAS_DATA(place) (!COUNTS(place) || data == live)
#define IN_A_QUEUE (file[A] || file[B])
#define WAITS_SOMEWHERE (file[WAITING(A)] || file[WAITING(B)])
#define IS_CHECKED_OUT (file[CHECKED_OUT(A)] || file[CHECKED_OUT(B)])
#define SOMEWHERE (IN_A_QUEUE || WAITS_SOMEWHERE || IS_CHECKED_OUT)

/* Does somebody who lists `.checkout/` and `.tmp/`, or the rest, come upon N? Listings are hints: they may be old. */
#define RECOVER_LISTS (IS_CHECKED_OUT || file[TMP])
#define SWEEP_LISTS (registry || data)
#ifdef MUTANT_SWEEP_FINDS_NOTHING
#define SWEEP_FINDS false
#else
#define SWEEP_FINDS (SWEEP_LISTS && !SOMEWHERE)
#endif
#define LEFT_SOMETHING (file[TMP] || data || IS_CHECKED_OUT)
#define FORGETTABLE (key != NONE && key != TO_COME) /* remembered.forgettable */
#define SWEEP_FORGETS (FORGETTABLE && !SOMEWHERE)

inline check() {
    if :: stale != NONE && file[stale - 1] == NONE -> stale = NONE :: else fi;
    PROMISE(in_exactly_one_place, COPIES == (live != NONE))
    PROMISE(metadata_is_whole, IN_EVERY_PLACE(IS_WHOLE))
    PROMISE(no_acknowledged_save_is_undone, IN_EVERY_PLACE(IS_CURRENT))
    PROMISE(data_is_there, IN_EVERY_PLACE(HAS_DATA))
    PROMISE(reservation_is_there, live == NONE || registry != NONE || losses > 0)
    PROMISE(owner_keeps_it, owner == NOBODY || IS_CHECKED_OUT)
    PROMISE(what_is_done_is_remembered, !kept || key == TO_COME)
    PROMISE(only_what_is_done_is_remembered, key != TO_COME || kept || (live != NONE && asked))
}

inline check_the_end() {
    PROMISE(all_is_available_again, !RECOVER_LISTS)
    PROMISE(nothing_is_left, live != NONE || (!SOMEWHERE && !SWEEP_LISTS && !FORGETTABLE))
}

/* ---- Steps, and death ------------------------------------------------------------------------------------------- */

/* STEP ... END is one step: it is done as a whole, or the process is killed before it. */
#define STEP if :: d_step {
#define END check() } :: d_step { over == 0 -> die() }; goto end_rest fi

/* The same for a step that writes a new file: killed in it, the process leaves a torn one. */
#define WRITE(new_file, content) if :: d_step { PROMISE(no_file_is_in_the_way, new_file == NONE) new_file = content; check() } \
    :: d_step { over == 0 -> new_file = TORN; check(); die() }; goto end_rest :: d_step { over == 0 -> die() }; goto end_rest fi

/* The end of an operation, and of a process: descriptors closed, locks dropped, everything forgotten. */
inline rest_again() {
    holder[fd[me]] = (holder[fd[me]] == ME -> NOBODY : holder[fd[me]]);
    fd[me] = NONE; busy--; over = (over == 0 -> 0 : over + 1);
    queue = 0; source = 0; target = 0; remember = 0; entry = 0; version = 0; read = 0; answer = 0; newborn = 0; seen = 0
}

inline die() { owner = (owner == ME -> NOBODY : owner); rest_again() }

inline drop_lock() { holder[fd[me]] = NOBODY } /* only mutants let go before the end */

inline unlink_registry() {
    registry = NONE; inode = LINKED + 1; other = 0;
    do /* find a number that no open inode has */
    :: other < PROCESSES && fd[other] == inode -> inode++; other = 0
    :: other < PROCESSES && fd[other] != inode -> other++
    :: else -> break
    od;
    holder[inode] = holder[LINKED]; holder[LINKED] = NOBODY; other = 0;
    do
    :: other < PROCESSES -> fd[other] = (fd[other] == LINKED -> inode : fd[other]); other++
    :: else -> break
    od;
    other = 0; inode = 0
}

/* ---- The lock (locks.py) ---------------------------------------------------------------------------------------- */

mtype = { OPENED, LOCKED, BUSY, GONE, MOVED, TAKEN };

inline open_existing() { /* locks._Table.open of a file that should be there */
    STEP
        newborn = 0;
        if :: registry == NONE -> answer = GONE :: else -> fd[me] = LINKED; answer = OPENED fi;
    END
}

inline open_new() { /* locks._Table.open with O_EXCL: a new inode, which nobody has open */
    STEP
        if
        :: registry != NONE -> answer = BUSY; newborn = 0
        :: else -> registry = LINKED; fd[me] = LINKED; newborn = 1; answer = OPENED
        fi;
    END
}

inline lock_opened() { /* locks._take */
    STEP /* flock(LOCK_EX | LOCK_NB) */
        if
        :: holder[fd[me]] == NOBODY -> holder[fd[me]] = ME
        :: else -> fd[me] = NONE; answer = (newborn -> GONE : BUSY)
        fi;
    END;
    if
    :: answer == OPENED ->
        STEP /* fstat and stat: does the name still lead to what was locked? */
#ifdef MUTANT_NO_VERIFY
            answer = LOCKED;
#else
            if
            :: fd[me] == LINKED -> answer = LOCKED
            :: else -> answer = GONE; holder[fd[me]] = NOBODY; fd[me] = NONE
            fi;
#endif
        END
    :: else
    fi
}

inline lock_existing() { /* locks.lock_existing */
    open_existing();
    if :: answer == OPENED -> lock_opened() :: else fi
}

inline lock_new() { /* locks.lock_new */
    open_new();
    if :: answer == OPENED -> lock_opened() :: else fi
}

#define UNLOCK d_step { check(); rest_again() } /* locks.Lock.release: LOCK_UN and close, the last step of all */

/* ---- Power loss: all die at once, and what was not synced may be lost -------------------------------------------- */

inline lose_power() {
    losses++;
    if :: key == BLANK && live == NONE -> key = NONE :: key == BLANK && live == NONE -> key = TORN :: skip fi; /* synced with its entry */
    if :: registry = NONE :: skip fi; /* Nobody has it open. `.registry` and `.tmp` are never synced */
    if :: file[TMP] = NONE :: skip fi;
    if /* of an entry that was checked out and came back, a file system may keep the older copy too */
    :: (file[A] || file[WAITING(A)]) && file[CHECKED_OUT(A)] == NONE -> file[CHECKED_OUT(A)] = METADATA(live, 0); stale = CHECKED_OUT(A) + 1
    :: (file[B] || file[WAITING(B)]) && file[CHECKED_OUT(B)] == NONE -> file[CHECKED_OUT(B)] = METADATA(live, 0); stale = CHECKED_OUT(B) + 1
    :: skip
    fi
}
