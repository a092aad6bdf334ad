/* An entry of an arm64 stage-2 table changes its size: it is a block of two
 * pages, or a table that has an entry for each page.
 *
 * A fault is a shared walker: it holds mmu_lock in read mode, so two faults may
 * change the entry at the same time. The exclusive walker holds mmu_lock in
 * write mode. It begins and ends a dirty log, splits a block, clears a page and
 * unmaps a page. The hardware of a vCPU walks whenever it likes, and its TLB
 * keeps a translation until a TLBI.
 *
 * To change the size of a valid entry takes three steps at level 0 of FEAT_BBM:
 *   B1  Break: compare-exchange the entry for the locked descriptor. It is
 *       invalid for the hardware. Another fault that meets it gives up, and
 *       the guest tries again.
 *   B2  TLBI and DSB: the vCPU drops its translations. Each access and walk
 *       that began before has ended.
 *   B3  Make: store the new entry with release.
 * Level 2 allows two steps instead:
 *   C1  Compare-exchange the old entry for the new one.
 *   C2  TLBI and DSB, as B2. Before, a TLB may hold translations of both sizes.
 *       An access that finds both uses one of them, or raises a TLB conflict
 *       abort. The abort's handler drops all translations of the vCPU, and the
 *       guest tries again.
 *
 * Other changes take one step. An invalid entry becomes valid, or a leaf gets
 * more rights, without a TLBI. An unmap makes an entry invalid; its TLBI comes
 * before it drops mmu_lock. The log makes leafs read-only; its TLBI may come
 * after it has dropped mmu_lock.
 *
 * Each valid or locked entry holds a reference on the table that it is in. So
 * B1, B3 and C1 change no count. A table whose count falls to 1 is empty. The
 * exclusive walker unlinks an empty table, then does a TLBI for it. A fault
 * unlinks a table when it puts a block in its place. An unlinked table is freed
 * after a grace period.
 *
 * A table is filled before it is linked. An eager split fills it with pages
 * that have the rights of the block. A lazy split fills it with unused entries:
 * its fault then puts one page there, and so may other faults.
 *
 * The log takes the mark of a page, makes the page read-only, does a TLBI, and
 * then copies the page. A fault marks a page before it makes the page writable.
 * A write is lost if it comes after the copy and the page has no mark.
 *
 * Steps that can be left out or moved:
 *   NO_BREAK               C1 and C2 are allowed at level 0
 *   NO_TLBI                B2 is left out
 *   TLBI_BEFORE_BREAK      B2 comes before B1
 *   TLBI_AFTER_MAKE        B2 comes after B3
 *   NO_LOCKED_VALUE        B1 stores the value of an unused entry
 *   BLIND_BREAK            B1 and C1 compare nothing
 *   NO_LATER_TLBI          C2 is left out
 *   NO_CONFLICT_HANDLER    a TLB conflict abort drops nothing
 *   TLBI_OF_ONE_PAGE       B2 and C2 for a table cover one of its pages
 *   TLBI_OF_LEAFS          B2 and C2 for a table leave pointers to it cached
 *   NO_UNLINK_TLBI         no TLBI follows the unlink of an empty table
 *   UNMAP_TLBI_LATE        the unmap drops the lock before its TLBI
 *   NO_GRACE_PERIOD        a table is freed at once
 *   NO_REFERENCE           a page that is put into a table takes no reference
 *   NO_LINK_REFERENCE      a new table takes no reference on the one above
 *   TABLE_PUBLISHED_FIRST  a table is linked before it is filled
 *   SPLIT_WIDENS           an eager split makes its pages writable
 *   MARK_LATER             a fault marks after it has made the page writable
 *   NO_LOG_TLBI            the log does no TLBI
 */

#define PAGES      2
#define TABLES     2
#define NO_TABLE   TABLES
#define OPERATIONS 2 /* of the exclusive walker */

/* What an entry holds. RO and RW are a block in `entry`, and a page in a table.
 * OLD is what the memory held before it became a table. */
mtype = { OLD, NONE, LOCKED, RO, RW, TABLE };

#define IS_LEAF(e) (e == RO || e == RW)

byte bbm_level; /* of FEAT_BBM: 0 or 2 */

/* The entry, and the table that it points at. */
mtype entry = NONE;
byte child = NO_TABLE;
byte upper_count = 1; /* references on the table that the entry is in */

typedef Table {
  mtype page[PAGES];
  byte count; /* references on this table */
  bool in_use
};
Table table[TABLES];

/* mmu_lock. `shared` is also the RCU read section of a fault. */
bool shared[2] = false;
bool exclusive = false;

/* The vCPU: the translations in its TLB, the table to which it has a pointer
 * cached, and whether it is in a walk or in a write. */
mtype tlb_block = NONE;
mtype tlb_page[PAGES] = NONE;
byte tlb_table = NO_TABLE;
bool inside = false;

/* The log. `copying`: between the take of a mark and the copy. */
bool logging = false;
bool marked[PAGES] = false;
bool copying[PAGES] = false;

/* The host is about to take the frame of the page; it has taken the frame. */
bool going[PAGES] = false;
bool taken[PAGES] = false;

/* Every touch of a table's memory. */
inline touch(t) { assert(table[t].in_use) }

/* TLBI and DSB. A TLBI for a block or a page drops only that size. */
inline tlbi_block() { d_step { !inside -> tlb_block = NONE } }
inline tlbi_page(p) { d_step { !inside -> tlb_page[p] = NONE } }
inline drop_all() {
  tlb_block = NONE;
  tlb_page[0] = NONE;
  tlb_page[1] = NONE;
  tlb_table = NO_TABLE
}
inline tlbi_all() { d_step { !inside -> drop_all() } }

/* B2 and C2 for an entry that was `before`. */
inline tlbi(before) {
  if
  :: before == TABLE ->
#if defined(TLBI_OF_ONE_PAGE)
    d_step { !inside -> tlb_page[p] = NONE; tlb_table = NO_TABLE }
#elif defined(TLBI_OF_LEAFS)
    d_step { !inside -> tlb_page[0] = NONE; tlb_page[1] = NONE }
#else
    tlbi_all()
#endif
  :: else -> tlbi_block()
  fi
}

/* --- Tables. --- */

/* Sets t to a free table: both are never in use when a thread needs one. */
inline allocate() {
  t = (table[0].in_use -> 1 : 0);
  assert(!table[t].in_use);
  table[t].in_use = true;
  table[t].count = 1
}

/* Sets both entries of table t to `e`. */
inline fill(e) {
  table[t].page[0] = e;
  table[t].page[1] = e;
  if
  :: e != NONE -> table[t].count = table[t].count + PAGES
  :: else -> skip
  fi
}

inline free(which) {
  table[which].in_use = false;
  table[which].count = 0;
  table[which].page[0] = OLD;
  table[which].page[1] = OLD
}

inline grace_period() {
#ifdef NO_GRACE_PERIOD
  skip
#else
  !shared[0];
  !shared[1]
#endif
}

/* --- The change of a valid entry. --- */

#ifdef BLIND_BREAK
#define UNCHANGED true
#else
#define UNCHANGED (entry == old && child == old_table)
#endif

#ifdef NO_LOCKED_VALUE
#define BROKEN NONE
#else
#define BROKEN LOCKED
#endif

#ifdef NO_BREAK
#define MAY_LEAVE_OUT_BREAK true
#else
#define MAY_LEAVE_OUT_BREAK (bbm_level == 2)
#endif

/* Changes the entry to `new` if it is still `old`; `done` tells whether it was.
 */
inline change(new, new_table) {
  if
  :: true ->
#ifdef TLBI_BEFORE_BREAK
    tlbi(old);
#endif
    d_step { /* B1 */
      done = UNCHANGED;
      if
      :: done -> entry = BROKEN; child = NO_TABLE
      :: else -> skip
      fi
    };
    if
    :: done ->
#if !defined(NO_TLBI) && !defined(TLBI_BEFORE_BREAK) && \
    !defined(TLBI_AFTER_MAKE)
      tlbi(old); /* B2 */
#endif
      d_step { entry = new; child = new_table }; /* B3 */
#ifdef TLBI_AFTER_MAKE
      tlbi(old)
#endif
    :: else -> skip
    fi
  :: MAY_LEAVE_OUT_BREAK ->
    d_step { /* C1 */
      done = UNCHANGED;
      if
      :: done -> entry = new; child = new_table
      :: else -> skip
      fi
    };
#ifndef NO_LATER_TLBI
    if
    :: done -> tlbi(old) /* C2 */
    :: else -> skip
    fi
#endif
  fi
}

/* --- A fault: a shared walker. --- */

/* While the log is on, or if a frame goes, a fault maps single pages only. */
#define MAPS_BLOCKS (!logging && !going[0] && !going[1])
#define RIGHTS (write -> RW : RO)

proctype Fault(bit me) {
  bit p;
  bool write, done;
  mtype old = NONE;
  byte old_table = NO_TABLE; /* if old is TABLE */
  byte t = NO_TABLE;         /* the table that this fault enters */
  byte unlinked = NO_TABLE;

  atomic {
    !exclusive -> shared[me] = true;
    if
    :: p = 0
    :: me == 1 -> p = 1 /* the pages are alike */
    fi;
    if
    :: write = false
    :: write = true
    fi;
    old = entry;
    old_table = child;
    if
    :: going[p] || old == LOCKED -> goto leave
    :: old == RW || (old == RO && !write) -> goto leave /* nothing to do */
    :: else -> skip
    fi
  };
  if
  :: old == NONE && MAPS_BLOCKS ->
    d_step {
      if
      :: entry == NONE -> entry = RIGHTS; upper_count++
      :: else -> skip
      fi
    }
  :: old == RO && MAPS_BLOCKS -> /* it gets more rights */
    d_step {
      if
      :: entry == RO -> entry = RW
      :: else -> skip
      fi
    }
  /* A block in the place of a table, or not: the host's page decides. */
  :: old == TABLE && MAPS_BLOCKS ->
    change(RIGHTS, NO_TABLE);
    if
    :: done -> unlinked = old_table
    :: else -> skip
    fi
  :: old == TABLE -> t = old_table; goto inside_table
  :: (old == NONE || old == RO) && !MAPS_BLOCKS ->
    d_step {
      allocate();
#ifndef TABLE_PUBLISHED_FIRST
      fill(NONE)
#endif
    };
    if
    :: old == NONE ->
      d_step {
        done = (entry == NONE);
        if
        :: done ->
          entry = TABLE;
          child = t;
#ifndef NO_LINK_REFERENCE
          upper_count++
#endif
        :: else -> skip
        fi
      }
    :: else -> change(TABLE, t) /* a lazy split */
    fi;
    atomic {
      if
      :: !done -> free(t); goto leave
      :: else -> skip
      fi
    };
#ifdef TABLE_PUBLISHED_FIRST
    d_step { fill(NONE) };
#endif
inside_table:
    atomic {
      touch(t);
      old = table[t].page[p];
      if
      :: old == RW || (old == RO && !write) -> goto leave
      :: else -> skip
      fi;
#ifndef MARK_LATER
      marked[p] = marked[p] || (logging && write)
#endif
    };
    d_step {
      touch(t);
      if
      :: table[t].page[p] == old ->
        table[t].page[p] = RIGHTS;
#ifndef NO_REFERENCE
        table[t].count = table[t].count + (old == NONE -> 1 : 0)
#endif
      :: else -> skip
      fi
    };
#ifdef MARK_LATER
    marked[p] = marked[p] || (logging && write)
#endif
  fi;
leave:
  atomic {
    shared[me] = false;
    p = 0;
    write = false;
    done = false;
    old = NONE;
    old_table = NO_TABLE;
    t = NO_TABLE
  };
  if
  :: unlinked != NO_TABLE -> /* an RCU callback */
    grace_period();
    d_step { free(unlinked); unlinked = NO_TABLE }
  :: else -> skip
  fi
}

/* --- The vCPU. --- */

proctype Hardware() {
  bit p = 0;
  byte t = NO_TABLE;
  mtype rights = NONE;
end:
  do
  /* A walk for page p begins at the entry, or at the cached table. */
  :: atomic {
       if
       :: p = 0
       :: p = 1
       fi;
       if
       :: tlb_table != NO_TABLE -> t = tlb_table
       :: entry == TABLE -> t = child; tlb_table = child
       :: IS_LEAF(entry) -> tlb_block = entry; p = 0; goto end
       :: entry == NONE || entry == LOCKED -> p = 0; goto end
       fi;
       inside = true
     };
     d_step {
       touch(t);
       assert(table[t].page[p] != OLD);
       if
       :: IS_LEAF(table[t].page[p]) -> tlb_page[p] = table[t].page[p]
       :: else -> skip
       fi;
       p = 0;
       t = NO_TABLE;
       inside = false
     }
  /* An access to page p uses what the TLB holds. */
  :: atomic {
       if
       :: p = 0
       :: p = 1
       fi;
       if
       :: tlb_block == NONE -> rights = tlb_page[p]
       :: tlb_page[p] == NONE -> rights = tlb_block
       :: tlb_block != NONE && tlb_page[p] != NONE ->
         assert(bbm_level == 2);
         if
         :: rights = tlb_block
         :: rights = tlb_page[p]
         :: true -> /* a TLB conflict abort */
#ifndef NO_CONFLICT_HANDLER
           drop_all();
#endif
           /* The next try must not find both again. */
           assert(tlb_block == NONE || tlb_page[p] == NONE)
         fi
       fi;
       assert(rights == NONE || !taken[p]);
       if
       :: rights == RW -> rights = NONE; inside = true
       :: else -> rights = NONE; p = 0; goto end
       fi
     };
     d_step { /* the write arrives */
       assert(!taken[p]);
       assert(!logging || marked[p] || copying[p]); /* it is not lost */
       p = 0;
       inside = false
     }
  od
}

/* --- The exclusive walker. --- */

inline write_lock() { /* the first step of a d_step */
  !shared[0] && !shared[1] -> exclusive = true;
  assert(entry != LOCKED)
}
inline write_unlock() { exclusive = false }

inline protect(q) {
  if
  :: entry == RW -> entry = RO
  :: entry == TABLE && table[child].page[q] == RW -> table[child].page[q] = RO
  :: else -> skip
  fi
}

inline eager_split() {
  d_step {
    old = entry;
    allocate();
#ifdef SPLIT_WIDENS
    fill(RW)
#elif !defined(TABLE_PUBLISHED_FIRST)
    fill(old)
#endif
  };
  change(TABLE, t);
#ifdef TABLE_PUBLISHED_FIRST
  d_step { fill(old) };
#endif
  d_step { assert(done); done = false; old = NONE; t = NO_TABLE }
}

/* Unmaps page q, since the host takes its frame. A block goes as a whole. */
inline unmap(q) {
  d_step {
    write_lock();
    going[q] = true;
    if
    :: IS_LEAF(entry) -> old = entry; entry = NONE; upper_count--
    :: entry == TABLE ->
      t = child;
      old = table[t].page[q];
      table[t].page[q] = NONE
    :: else -> skip
    fi
  };
#ifdef UNMAP_TLBI_LATE
  write_unlock();
#endif
  if
  :: old != NONE && t == NO_TABLE -> tlbi_block()
  :: old != NONE && t != NO_TABLE -> tlbi_page(q)
  :: else -> skip
  fi;
#ifdef UNMAP_TLBI_LATE
  d_step { write_lock() };
#endif
  d_step {
    if
    :: t == NO_TABLE -> skip
    :: else ->
      if
      :: old != NONE -> table[t].count--
      :: else -> skip
      fi;
      if
      :: table[t].count == 1 -> /* it is empty */
        entry = NONE;
        child = NO_TABLE;
        upper_count--
      :: else -> t = NO_TABLE
      fi
    fi;
    old = NONE
  };
#ifndef NO_UNLINK_TLBI
  if
  :: t != NO_TABLE -> tlbi_all()
  :: else -> skip
  fi;
#endif
  d_step { taken[q] = true; write_unlock() };
  if
  :: t != NO_TABLE ->
    grace_period();
    d_step {
      assert(table[t].page[0] == NONE && table[t].page[1] == NONE);
      free(t);
      t = NO_TABLE
    }
  :: else -> skip
  fi
}

inline log_tlbi() {
#ifdef NO_LOG_TLBI
  skip
#else
  tlbi_all()
#endif
}

proctype Exclusive() {
  byte left = OPERATIONS;
  bit p = 0;
  bool done = false;
  mtype old = NONE;
  byte old_table = NO_TABLE, t = NO_TABLE;
  do
  /* The log begins. */
  :: left > 0 && !logging ->
    d_step {
      write_lock();
      logging = true;
      copying[0] = true;
      copying[1] = true;
      protect(0);
      protect(1)
    };
    if
    :: IS_LEAF(entry) -> eager_split()
    :: skip
    fi;
    write_unlock();
    log_tlbi();
    d_step { copying[0] = false; copying[1] = false; left-- }
  /* The log clears a page. */
  :: left > 0 && logging && (marked[0] || marked[1]) ->
    d_step {
      p = (marked[0] -> 0 : 1);
      copying[p] = true;
      marked[p] = false
    };
    d_step { write_lock(); protect(p); write_unlock() };
    log_tlbi();
    d_step { copying[p] = false; p = 0; left-- }
  /* The log ends. */
  :: left > 0 && logging ->
    d_step {
      write_lock();
      logging = false;
      marked[0] = false;
      marked[1] = false;
      write_unlock();
      left--
    }
  :: left > 0 ->
    if
    :: unmap(0)
    :: unmap(1)
    fi;
    left--
  :: break
  od
}

/* All that may be mapped at first. No leaf is writable while the log is on. */
inline begin() {
  table[0].page[0] = OLD;
  table[0].page[1] = OLD;
  table[1].page[0] = OLD;
  table[1].page[1] = OLD;
  if
  :: bbm_level = 0
  :: bbm_level = 2
  fi;
  if
  :: logging = true
  :: skip
  fi;
  if
  :: skip /* nothing is mapped */
  :: entry = RO
  :: !logging -> entry = RW
  :: entry = TABLE;
     t = 0;
     child = 0;
     table[0].in_use = true;
     table[0].count = 1;
     fill(RO);
     if
     :: !logging -> table[0].page[0] = RW
     :: skip
     fi;
     if
     :: table[0].page[1] = NONE; table[0].count--
     :: skip
     fi;
     t = NO_TABLE
  fi;
  upper_count = upper_count + (entry == NONE -> 0 : 1)
}

init {
  mtype old = NONE;
  byte t = NO_TABLE;
  atomic {
    begin();
    run Hardware();
    run Fault(0);
    run Fault(1);
    run Exclusive()
  };
  _nr_pr == 2;
  /* No reference is missing, and none is left over. */
  unmap(0);
  unmap(1);
  assert(entry == NONE && upper_count == 1);
  assert(!table[0].in_use && !table[1].in_use)
}
