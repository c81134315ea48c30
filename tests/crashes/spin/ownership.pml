/*
 * Who owns an entry, and what becomes of it when its owner is killed: the protocol of src/trio_multispool/storage/directory/.
 *
 * Theory. Spin tries every order in which PROCESSES processes can make their system calls on one name N in a spool of
 * two queues, A and B. Each STEP below is one call (or several that nobody else can tell apart), and before each of
 * them the process may be killed: the kernel then drops its lock, and another process starts in its place. After every
 * step, check() asserts what must hold at every moment. Names like `enqueue.reserve` say which function of
 * src/trio_multispool/storage/directory/ a step stands for.
 *
 * What is on disk is one byte a file. A metadata file is a pair (entry, version): a name that is removed and enqueued
 * again is another entry, and every save makes a new version. A file that was created and not yet written is TORN.
 * A lock belongs to an inode, not to a name: a process may well lock a registry file that was unlinked meanwhile.
 *
 * What is promised, and asserted:
 *   - an entry has one owner at most, and nobody moves it while it has one;
 *   - an entry whose enqueue was committed is in exactly one place until its remove is committed;
 *   - its metadata is whole, and never older than the last save that was committed;
 *   - wherever there is metadata there is the data of the same entry, whole, and (but after power loss) a reservation;
 *   - the name of a removed entry that is to be remembered is not used again before its time has passed, and no other
 *     name is kept from anybody;
 *   - no new file meets an old one of its name, and no rename meets an existing target, but for a stale copy;
 *   - wherever everybody is killed, one recovery makes the entry available, or leaves nothing at all of it.
 *
 * Sizes, each a define: PROCESSES, ENTRIES (how often N is enqueued at most), SAVES, LOSSES (power failures), WAITS (1:
 * entries may wait, and whoever looks finds them due, or not), KEYS (1: names may be remembered, and once the time of a
 * remembered name passes).
 * A define of the form MUTANT_... breaks one rule, and must make the check fail: README.md has the table.
 *
 * Left out: syncs and failing calls (tests/ tries every call with every error), data saves, quarantine (an entry that
 * is set aside never comes back), when what waits is due, a key without an entry (`remember`), `direct` and the `..._unsafe` operations (which may take no lock).
 */

#include "disk.pml"

/* ---- What operations have in common ----------------------------------------------------------------------------- */

/* layout.Layout.places_of: first in every `.checkout`, then in every queue. Two directories of a kind are one step: an
   entry that somebody moves without the lock slips past between the kinds already. */
inline look_in_all_places() {
#ifndef MUTANT_PLACES_WITHOUT_CHECKOUT
    STEP seen = IS_CHECKED_OUT; END;
#endif
#ifndef MUTANT_PLACES_WITHOUT_WAITING
    if :: WAITS -> STEP seen = seen || WAITS_SOMEWHERE; END :: else fi;
#endif
    STEP seen = seen || IN_A_QUEUE; END
}

inline look_whether_remembered() { /* enqueue._refuse_if_remembered, remembered.is_remembered */
    if
    :: KEYS ->
        STEP seen = key == TO_COME; END;
        if :: seen :: else -> STEP key = NONE; END fi /* files.unlink_if_there */
    :: else
    fi
}

inline clear_leftovers() { /* enqueue.clear_leftovers, enqueue.collect_leftovers */
    STEP file[TMP] = NONE; END; /* files.unlink_if_there */
    STEP data = NONE; END
}

inline collect_if_nowhere() { /* recovery.collect_if_nowhere */
    look_in_all_places();
    if :: seen :: else -> goto clearing_away fi
}

inline move_to_checkout() { /* commits.move: the commit of a check-out */
    STEP
        if
        :: file[source] == NONE -> answer = GONE
        :: file[source] != NONE && file[CHECKED_OUT(queue)] != NONE ->
            PROMISE(no_file_is_in_the_way, stale == CHECKED_OUT(queue) + 1)
            answer = TAKEN
        :: else ->
            PROMISE(one_owner, owner == NOBODY)
            PROMISE(read_is_taken, file[source] == read)
            file[CHECKED_OUT(queue)] = file[source]; file[source] = NONE;
            owner = ME; answer = MOVED
        fi;
    END
}

/* ---- A process -------------------------------------------------------------------------------------------------- */

active [PROCESSES] proctype Process() {
    byte me = _pid;
    byte queue;      /* whose entry is taken, or checked out */
    byte source;     /* the place where it is taken from: the queue, or where it waits for it */
    byte target;     /* the place where it is saved to */
    bool remember;   /* is the name of the entry that is being made to be remembered? */
    byte entry;      /* the number of the entry that is being made, or held */
    byte version;    /* that of the metadata that is being saved */
    byte read;       /* the metadata that was read before the check-out */
    mtype answer;    /* of the last call that can answer in several ways */
    bool newborn;    /* did this process make the registry file? */
    bool seen;       /* was the name seen in a place? */

end_rest: /* where a process may stay for ever (to spin, a label that begins with `end` says so) */
    if
    :: d_step { over == 0 && entries < ENTRIES -> busy++ }; goto enqueuing
    :: d_step { over == 0 && file[A] != NONE -> source = A; busy++ }; goto checking_out /* store.DirectoryStorage.names */
    :: d_step { over == 0 && file[B] != NONE -> source = B; busy++ }; goto checking_out
    :: d_step { over == 0 && file[WAITING(A)] != NONE -> source = WAITING(A); busy++ }; goto checking_out /* waiting.waiting */
    :: d_step { over == 0 && file[WAITING(B)] != NONE -> source = WAITING(B); busy++ }; goto checking_out
    :: d_step { over == 0 && (RECOVER_LISTS || SWEEP_LISTS) -> busy++ }; goto recovering
    :: d_step { over == 0 && FORGETTABLE -> busy++ }; goto forgetting
    :: d_step { over == 0 && key == TO_COME && passings < KEYS -> key = PASSED; kept = 0; passings++ }; goto end_rest
    :: atomic { over == 0 && busy == 0 && losses < LOSSES -> lose_power() }; goto end_rest
    /* All are dead. One process recovers, then sweeps, and is not killed any more. */
    :: d_step { me == 0 && over == 0 && busy == 0 -> over = 1 }; goto end_rest
    :: d_step { me == 0 && over == 1 && RECOVER_LISTS -> busy++ }; goto recovering
    :: d_step { me == 0 && over == 1 && !RECOVER_LISTS -> over = 2 }; goto end_rest
    :: d_step { me == 0 && over == 2 && SWEEP_FINDS -> busy++ }; goto recovering
    :: d_step { me == 0 && over == 2 && !SWEEP_FINDS -> over = 3 }; goto end_rest
    :: d_step { me == 0 && over == 3 && SWEEP_FORGETS -> busy++ }; goto forgetting
    :: d_step { me == 0 && over == 3 && !SWEEP_FORGETS -> over = 4 }; goto end_rest
    :: d_step { me == 0 && over == 4 -> check_the_end(); over = 5 }; goto end_rest
    fi;

enqueuing: /* enqueue.reserve, enqueue._newborn_or_taken_over */
    lock_new();
    if
    :: answer == LOCKED
    :: answer == GONE -> goto enqueuing /* a collector was quicker with the lock of the newborn */
    :: answer == BUSY ->
        lock_existing();
        if
        :: answer == LOCKED
        :: answer == GONE -> goto enqueuing
        :: d_step { answer == BUSY -> rest_again() }; goto end_rest /* EntryBusy or NameTaken: nothing was done */
        fi
    fi;
#ifdef MUTANT_NEWBORN_IS_NOT_LOOKED_FOR
    if :: newborn :: else -> look_in_all_places() fi;
#elif !defined(MUTANT_TAKE_OVER_LOOKS_NOWHERE)
    look_in_all_places(); /* enqueue._refuse_if_taken */
#endif
    if
    :: seen -> UNLOCK; goto end_rest /* NameTaken */
    :: else
    fi;
#ifdef MUTANT_ENQUEUE_KEEPS_KEYS
    if :: KEYS -> STEP seen = key == TO_COME; END :: else fi;
#else
    look_whether_remembered();
#endif
    if
    :: seen && newborn -> newborn = 0; STEP unlink_registry(); END; UNLOCK; goto end_rest
    :: seen && !newborn -> UNLOCK; goto end_rest /* NameTaken, too: recovery collects the reservation */
    :: else
    fi;
#ifndef MUTANT_TAKE_OVER_KEEPS_LEFTOVERS
    clear_leftovers();
#endif
    answer = 0; newborn = 0;
    if
    :: d_step { entries < ENTRIES -> entries++; entry = entries } /* enqueue.enqueue_together */
    :: goto clearing_away /* enqueue.give_up */
    fi;
#ifndef MUTANT_ENQUEUE_WRITES_DATA_LAST
    WRITE(data, entry); /* files.begin_new, in `.data` */
#endif
    WRITE(file[TMP], METADATA(entry, 0)); /* files.begin_new, in `.tmp` */
    if
    :: KEYS -> remember = 1;
        STEP key = NONE; END; /* remembered.begin */
#ifdef MUTANT_KEY_IS_DATED_FROM_THE_START
        WRITE(key, TO_COME)
#else
        WRITE(key, BLANK)
#endif
    :: remember = 0
    fi;
#ifdef MUTANT_ENQUEUE_UNLOCKS_EARLY
    STEP drop_lock(); END;
#endif
    if
    :: target = A
    :: WAITS -> target = WAITING(A) /* waiting.where_to_wait */
    :: if :: remember -> STEP key = NONE; END :: else fi; /* enqueue._undo */
       entry = 0; goto clearing_away /* enqueue.give_up of what has failed, or was cancelled, before its commit */
    fi;
    STEP /* commits.move: the commit */
        PROMISE(no_file_is_in_the_way, file[target] == NONE)
        PROMISE(metadata_is_whole, file[TMP] == METADATA(entry, 0))
        PROMISE(a_remembered_name_is_not_used, !kept)
        file[target] = file[TMP]; file[TMP] = NONE; live = entry; saved = 0; asked = remember;
    END;
#ifdef MUTANT_ENQUEUE_WRITES_DATA_LAST
    WRITE(data, entry);
#endif
    UNLOCK; goto end_rest;

clearing_away: /* the end of enqueue.give_up, of settle.remove and of recovery.collect_if_nowhere */
#ifdef MUTANT_RESERVATION_IS_NOT_LAST
    STEP unlink_registry(); END;
    clear_leftovers();
#else
    clear_leftovers();
    STEP unlink_registry(); END;
#endif
    UNLOCK; goto end_rest;

checking_out: /* checkout.claim */
    queue = QUEUE_OF(source);
#ifdef MUTANT_CHECK_OUT_READS_BEFORE_IT_LOCKS
    STEP read = file[source]; END;
#endif
#ifdef MUTANT_CHECK_OUT_WITHOUT_LOCK
    answer = LOCKED;
#else
    lock_existing();
#endif
    if
    :: d_step { answer == GONE && file[source] == NONE -> rest_again() }; goto end_rest
    :: answer == GONE && file[source] != NONE -> /* layout.Layout.holds, then locks.lock_or_reserve */
        lock_existing();
        if :: answer == GONE -> lock_new() :: else fi
    :: answer == LOCKED || answer == BUSY
    fi;
    if
    :: answer == LOCKED
    :: d_step { answer == BUSY || answer == GONE -> rest_again() }; goto end_rest
    fi;
#ifndef MUTANT_CHECK_OUT_READS_BEFORE_IT_LOCKS
    STEP read = file[source]; END; /* files.read_file */
#endif
    if
    :: WAITS && source >= WAITING(A) -> UNLOCK; goto end_rest /* it is not due yet */
    :: read == NONE -> answer = GONE
    :: read != NONE ->
        move_to_checkout();
        if
        :: answer == TAKEN -> /* checkout._move_over_stale_copy */
            STEP file[CHECKED_OUT(queue)] = NONE; END;
            move_to_checkout()
        :: else
        fi
    fi;
    if
    :: answer == GONE ->
        if
        :: newborn -> newborn = 0; collect_if_nowhere() /* made for an entry that has gone meanwhile */
        :: else
        fi;
        UNLOCK; goto end_rest
    :: answer == MOVED -> answer = 0; newborn = 0
    fi;
    /* The entry is the caller's, until it is settled. */
    if
    :: d_step { versions < SAVES -> versions++; version = versions; target = A }; goto saving
    :: d_step { versions < SAVES -> versions++; version = versions; target = B }; goto saving
    :: d_step { WAITS && versions < SAVES -> versions++; version = versions; target = WAITING(A) }; goto saving
    :: WAITS -> version = VERSION_OF(read); target = WAITING(B); goto saving /* the same metadata, dated anew */
    :: target = B; goto moving /* settle.save without new metadata */
    :: target = source; goto moving /* settle.release */
    :: goto removing
    fi;

saving: /* settle.save, settle._new_metadata */
#ifndef MUTANT_SAVE_KEEPS_LEFTOVERS
    STEP file[TMP] = NONE; END; /* left by an owner who died */
#endif
    WRITE(file[TMP], METADATA(ENTRY_OF(read), version)); /* files.begin_new */
    if
    :: STEP file[TMP] = NONE; target = source; version = 0; END; goto moving /* cancelled before its commit */
    :: STEP /* commits.exchange */
            PROMISE(metadata_is_whole, file[TMP] == METADATA(ENTRY_OF(read), version))
            PROMISE(owner_keeps_it, file[CHECKED_OUT(queue)] == read)
            file[TMP] = read; file[CHECKED_OUT(queue)] = METADATA(ENTRY_OF(read), version);
       END
    fi;
#ifdef MUTANT_SAVE_UNLOCKS_EARLY
    STEP drop_lock(); END;
#endif
    STEP /* commits.move: the commit */
        PROMISE(owner_keeps_it, owner == ME && file[CHECKED_OUT(queue)] == METADATA(ENTRY_OF(read), version))
        PROMISE(no_file_is_in_the_way, file[target] == NONE)
        file[target] = file[CHECKED_OUT(queue)]; file[CHECKED_OUT(queue)] = NONE; saved = version; owner = NOBODY;
    END;
    STEP file[TMP] = NONE; END; /* the old metadata */
    UNLOCK; goto end_rest;

moving: /* settle.release, and settle.save without new metadata */
#ifdef MUTANT_RELEASE_UNLOCKS_EARLY
    STEP drop_lock(); END;
#endif
    STEP /* commits.move: the commit */
        PROMISE(owner_keeps_it, owner == ME && file[CHECKED_OUT(queue)] == read)
        PROMISE(no_file_is_in_the_way, file[target] == NONE)
        file[target] = file[CHECKED_OUT(queue)]; file[CHECKED_OUT(queue)] = NONE; owner = NOBODY;
    END;
    UNLOCK; goto end_rest;

removing: /* settle.remove */
#ifdef MUTANT_REMOVE_DELETES_DATA_FIRST
    STEP data = NONE; END;
#endif
#ifdef MUTANT_REMOVE_DELETES_RESERVATION_FIRST
    STEP unlink_registry(); END;
#endif
#ifndef MUTANT_REMOVE_REMEMBERS_AFTER_ITS_COMMIT
    if :: KEYS && key != NONE -> STEP key = TO_COME; END :: else fi; /* remembered.finishing */
#endif
    STEP /* commits.unlink: the commit */
        PROMISE(owner_keeps_it, owner == ME && file[CHECKED_OUT(queue)] == read)
        file[CHECKED_OUT(queue)] = NONE; live = NONE; saved = 0; owner = NOBODY; queue = 0; source = 0; read = 0;
        kept = asked && key != PASSED; asked = 0;
    END;
#ifdef MUTANT_REMOVE_REMEMBERS_AFTER_ITS_COMMIT
    if :: KEYS && key != NONE -> STEP key = TO_COME; END :: else fi;
#endif
    goto clearing_away;

forgetting: /* remembered.collect, of a name whose time has passed */
#ifdef MUTANT_FORGETTING_WITHOUT_LOCK
    STEP key = NONE; END;
    UNLOCK; goto end_rest;
#endif
    lock_existing();
    if :: answer == GONE -> lock_new() :: else fi;
    if
    :: answer == LOCKED
    :: d_step { answer == BUSY || answer == GONE -> rest_again() }; goto end_rest
    fi;
    look_in_all_places();
    if
    :: seen -> UNLOCK; goto end_rest
    :: else
    fi;
    look_whether_remembered();
    if :: newborn -> newborn = 0; STEP unlink_registry(); END :: else fi;
    UNLOCK; goto end_rest;

/* recovery.recover_name, for recovery.recover and recovery.sweep. The sweep's two looks without the lock only spare it
   names, so here it tries any name that has anything; but for the last one, which must find what it needs to. */
recovering:
#ifdef MUTANT_RECOVER_LOOKS_BEFORE_IT_LOCKS
    look_in_all_places();
    target = seen;
#endif
#ifdef MUTANT_RECOVER_WITHOUT_LOCK
    answer = LOCKED;
#else
    lock_existing();
#endif
    if
    :: answer == GONE && LEFT_SOMETHING -> lock_new() /* recovery._left_something */
    :: answer == GONE && !LEFT_SOMETHING
    :: answer == LOCKED || answer == BUSY
    fi;
    if
    :: answer == LOCKED -> answer = 0; newborn = 0
    :: d_step { answer == BUSY || answer == GONE -> rest_again() }; goto end_rest
    fi;
#ifdef MUTANT_COLLECT_IGNORES_CHECKOUT
    STEP seen = IN_A_QUEUE || WAITS_SOMEWHERE; END;
    if :: seen :: else -> goto clearing_away fi;
#endif
    queue = A; /* recovery._latest_first has no choice: an entry is checked out of one queue at most */
    do
    :: queue <= B ->
        STEP seen = file[CHECKED_OUT(queue)] != NONE; END; /* layout.Layout.places_of those that are checked out */
        if
        :: seen ->
#ifdef MUTANT_RECOVER_PREFERS_THE_CHECKED_OUT
            STEP file[queue] = NONE; END;
            seen = 0;
#else
            STEP seen = IN_A_QUEUE; END; /* layout.Layout.places_of those that are available, or wait */
#ifndef MUTANT_RECOVER_IGNORES_WHAT_WAITS
            if :: WAITS -> STEP seen = seen || WAITS_SOMEWHERE; END :: else fi;
#endif
#endif
            if
            :: seen -> STEP file[CHECKED_OUT(queue)] = NONE; END /* commits.unlink */
            :: else ->
                STEP /* recovery._put_back */
                    PROMISE(no_file_is_in_the_way, file[queue] == NONE)
                    file[queue] = file[CHECKED_OUT(queue)]; file[CHECKED_OUT(queue)] = NONE;
                END
            fi
        :: else
        fi;
        queue++
    :: else -> break
    od;
    queue = 0;
#ifdef MUTANT_COLLECT_UNLOCKED
    STEP drop_lock(); END;
#endif
#ifdef MUTANT_RECOVER_LOOKS_BEFORE_IT_LOCKS
    seen = target; target = 0;
    if :: seen :: else -> goto clearing_away fi;
#else
    collect_if_nowhere();
#endif
#ifndef MUTANT_RECOVER_KEEPS_TEMPORARY
    STEP file[TMP] = NONE; END; /* files.unlink_if_there */
#endif
    UNLOCK; goto end_rest
}
