/* A stand-in for libnccl.so.2, for tests on machines without a GPU.
 *
 * It has NCCL's interface and carries collectives out on host memory, over POSIX shared memory,
 * among threads or processes. It exists to check the layer above: calling order, polling,
 * deadlines, errors, abort. It says nothing about NCCL's own results or speed.
 *
 * Every communicator is a non-blocking one: a call starts a thread and answers ncclInProgress,
 * and ncclCommGetAsyncError tells when it is done. An operation is carried out once it is
 * accepted, since there is no stream to wait for.
 *
 * Faults are chosen when it is compiled:
 *   -DVERSION=21302                 another version
 *   -DWITHOUT_FINALIZE, _SPLIT, _REVOKE   a function less
 *   -DFAULTY_RANK=1                 the following on this rank alone (otherwise on all)
 *   -DREFUSE='"ncclAllReduce"'      the call answers -DCODE=2 at once
 *   -DBREAK='"ncclAllReduce"'       the call goes on, then the communicator's state is CODE
 *   -DSTALL='"ncclAllReduce"'       the call stays in progress for ever
 *   -DHANG='"ncclAllReduce"'        the call does not return
 *   -DDIE_AFTER=3                   the state becomes ncclRemoteError after so many operations
 *   -DDIE_BESIDE                    that of one that was split off does once any operation stalls
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef VERSION
#define VERSION 22809
#endif
#ifndef FAULTY_RANK
#define FAULTY_RANK -1
#endif
#ifndef REFUSE
#define REFUSE ""
#endif
#ifndef BREAK
#define BREAK ""
#endif
#ifndef STALL
#define STALL ""
#endif
#ifndef HANG
#define HANG ""
#endif
#ifndef CODE
#define CODE 2
#endif
#ifndef DIE_AFTER
#define DIE_AFTER 0
#endif

enum { SUCCESS, CUDA_ERROR, SYSTEM_ERROR, INTERNAL_ERROR, BAD_ARGUMENT, BAD_USAGE, REMOTE_ERROR,
       IN_PROGRESS };
enum { MAX_RANKS = 8, SLOT = 1 << 16, MAX_OPS = 64 };

typedef struct { char name[64]; char rest[64]; } unique_id;

typedef struct {
  size_t size;
  unsigned magic, version;
  int blocking, cga_cluster_size, min_ctas, max_ctas;
  const char *net_name;
  int split_share;
} config;

/* Seen by all ranks of a communicator. A fresh one is all zeroes. */
typedef struct {
  atomic_int arrived, generation, aborted;
  struct { char name[24]; size_t count; int kind, op, root, color, key; } calls[MAX_RANKS];
  char slots[MAX_RANKS][SLOT];
  /* One mailbox for each pair: full bytes, 0 when empty. */
  atomic_size_t full[MAX_RANKS][MAX_RANKS];
  char mail[MAX_RANKS][MAX_RANKS][SLOT];
} segment;

typedef struct operation {
  const char *name;
  const char *send;
  char *receive;
  size_t count;
  int kind, op, peer;
  size_t moved; /* of a send or receive */
} operation;

typedef struct comm {
  int rank, size, num_splits, num_done;
  segment *shared;
  char name[64];
  atomic_int state, stop;
  operation ops[MAX_OPS];
  int num_ops, color, key, is_child;
  struct comm **child;
} comm;

static atomic_int num_stalled;

static __thread int group_depth;
static __thread comm *group_comm;
static __thread char last_error[256];

static int is(const comm *c, const char *fault, const char *name) {
  return strcmp(fault, name) == 0 && (FAULTY_RANK < 0 || c == NULL || c->rank == FAULTY_RANK);
}

/* What happens at the door of every call. */
#define ENTER(c, name)                                                                    \
  do {                                                                                    \
    if (is(c, HANG, name)) for (;;) pause();                                              \
    if (is(c, REFUSE, name)) {                                                            \
      snprintf(last_error, sizeof last_error, "the stand-in refuses %s", name);           \
      return CODE;                                                                        \
    }                                                                                     \
  } while (0)

static int given_up(comm *c) { return atomic_load(&c->stop) || atomic_load(&c->shared->aborted); }

/* All ranks, or false when one has given up. */
static int meet(comm *c) {
  segment *s = c->shared;
  int generation = atomic_load(&s->generation);
  if (atomic_fetch_add(&s->arrived, 1) + 1 == c->size) {
    atomic_store(&s->arrived, 0);
    atomic_fetch_add(&s->generation, 1);
  }
  while (atomic_load(&s->generation) == generation) {
    if (given_up(c)) {
      atomic_fetch_sub(&s->arrived, 1);
      return 0;
    }
    usleep(20);
  }
  return 1;
}

static size_t width(int kind) {
  static const size_t widths[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
  return widths[kind];
}

#define FOLD(type)                                                        \
  do {                                                                    \
    type *into = out;                                                     \
    const type *from = in;                                                \
    for (size_t i = 0; i < n; i++) {                                      \
      type a = into[i], b = from[i];                                      \
      into[i] = op == 1 ? a * b : op == 2 ? (a > b ? a : b)               \
              : op == 3 ? (a < b ? a : b) : a + b;                        \
      if (op == 4 && last) into[i] /= size;                               \
    }                                                                     \
  } while (0)

static void fold(void *out, const void *in, size_t n, int kind, int op, int last, int size) {
  switch (kind) {
    case 0: FOLD(int8_t); break;
    case 1: FOLD(uint8_t); break;
    case 2: FOLD(int32_t); break;
    case 3: FOLD(uint32_t); break;
    case 4: FOLD(int64_t); break;
    case 5: FOLD(uint64_t); break;
    case 7: FOLD(float); break;
    case 8: FOLD(double); break;
    default: break; /* half precision is refused in `collective` */
  }
}

static int collective(comm *c, operation *o) {
  segment *s = c->shared;
  size_t bytes = width(o->kind), part = SLOT / bytes / c->size;
  int scatter = !strcmp(o->name, "ncclReduceScatter"), gather = !strcmp(o->name, "ncclAllGather");
  int all = !strcmp(o->name, "ncclAllReduce");
  if ((scatter || all) && (o->kind == 6 || o->kind == 9)) return BAD_ARGUMENT;
  snprintf(s->calls[c->rank].name, sizeof s->calls[0].name, "%s", o->name);
  s->calls[c->rank].count = o->count;
  s->calls[c->rank].kind = o->kind;
  if (!meet(c)) return REMOTE_ERROR;
  for (int r = 0; r < c->size; r++)
    if (strcmp(s->calls[r].name, o->name) || s->calls[r].count != o->count ||
        s->calls[r].kind != o->kind)
      return INTERNAL_ERROR; /* NCCL would hang, or worse */
  if (!meet(c)) return REMOTE_ERROR;
  for (size_t start = 0; start < o->count; start += part) {
    size_t n = o->count - start < part ? o->count - start : part;
    /* A slot holds one piece, or for a scatter one piece for each rank. */
    if (scatter)
      for (int r = 0; r < c->size; r++)
        memcpy(s->slots[c->rank] + r * part * bytes, o->send + (r * o->count + start) * bytes,
               n * bytes);
    else if (strcmp(o->name, "ncclBroadcast") || c->rank == o->peer)
      memcpy(s->slots[c->rank], o->send + start * bytes, n * bytes);
    if (!meet(c)) return REMOTE_ERROR;
    char *out = o->receive + start * bytes;
    if (gather) {
      for (int r = 0; r < c->size; r++)
        memcpy(o->receive + (r * o->count + start) * bytes, s->slots[r], n * bytes);
    } else if (all || scatter) {
      size_t at = scatter ? c->rank * part * bytes : 0;
      memcpy(out, s->slots[0] + at, n * bytes);
      for (int r = 1; r < c->size; r++)
        fold(out, s->slots[r] + at, n, o->kind, o->op, r == c->size - 1, c->size);
    } else {
      memcpy(out, s->slots[o->peer], n * bytes);
    }
    if (!meet(c)) return REMOTE_ERROR;
  }
  return SUCCESS;
}

/* Moves what can be moved now; 1 when the whole message has gone. */
static int move(comm *c, operation *o) {
  size_t total = o->count * width(o->kind), left = total - o->moved;
  size_t n = left < SLOT ? left : SLOT;
  if (left == 0) return 1;
  if (o->send != NULL) {
    if (atomic_load(&c->shared->full[c->rank][o->peer])) return 0;
    memcpy(c->shared->mail[c->rank][o->peer], o->send + o->moved, n);
    atomic_store(&c->shared->full[c->rank][o->peer], n);
  } else {
    n = atomic_load(&c->shared->full[o->peer][c->rank]);
    if (n == 0) return 0;
    memcpy(o->receive + o->moved, c->shared->mail[o->peer][c->rank], n);
    atomic_store(&c->shared->full[o->peer][c->rank], 0);
  }
  o->moved += n;
  return o->moved == total;
}

static int point_to_point(comm *c) {
  for (int left = 1; left;) {
    left = 0;
    for (int i = 0; i < c->num_ops; i++)
      if (c->ops[i].peer >= 0 && (!c->ops[i].send || !c->ops[i].receive))
        left += !move(c, &c->ops[i]);
    if (given_up(c)) return REMOTE_ERROR;
    if (left) usleep(20);
  }
  return SUCCESS;
}

static segment *attach(const char *name) {
  int file = shm_open(name, O_CREAT | O_RDWR, 0600);
  if (file < 0 || ftruncate(file, sizeof(segment)) != 0) return NULL;
  void *memory = mmap(NULL, sizeof(segment), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  return memory == MAP_FAILED ? NULL : memory;
}

static comm *make(const char *name, int size, int rank) {
  comm *c = calloc(1, sizeof *c);
  c->rank = rank;
  c->size = size;
  snprintf(c->name, sizeof c->name, "%s", name);
  c->shared = attach(name);
  return c;
}

/* Runs what was put into `c`, then sets its state, after which it must not touch `c`. */
static void *work(void *argument) {
  comm *c = argument;
  int state = SUCCESS;
  const char *name = c->num_ops ? c->ops[0].name : "";
  if (is(c, STALL, name)) {
    atomic_fetch_add(&num_stalled, 1);
    while (!atomic_load(&c->stop)) usleep(100);
    state = REMOTE_ERROR;
  }
  for (int i = 0; i < c->num_ops && state == SUCCESS; i++)
    if (c->ops[i].send && c->ops[i].receive) state = collective(c, &c->ops[i]);
  if (state == SUCCESS) state = point_to_point(c);
  if (is(c, BREAK, name)) state = CODE;
  c->num_done += c->num_ops;
  c->num_ops = 0;
  atomic_store(&c->state, state);
  return NULL;
}

static int start(comm *c, void *(*job)(void *)) {
  pthread_t thread;
  atomic_store(&c->state, IN_PROGRESS);
  if (pthread_create(&thread, NULL, job, c) != 0) return SYSTEM_ERROR;
  pthread_detach(thread);
  return IN_PROGRESS;
}

static void release(comm *c) {
  atomic_store(&c->stop, 1);
  while (atomic_load(&c->state) == IN_PROGRESS) usleep(20);
  shm_unlink(c->name);
  munmap(c->shared, sizeof(segment));
  free(c);
}

int ncclGetVersion(int *version) {
  *version = VERSION;
  return SUCCESS;
}

int ncclGetUniqueId(unique_id *id) {
  static atomic_int serial;
  ENTER((comm *)NULL, "ncclGetUniqueId");
  memset(id, 0, sizeof *id);
  /* The address tells apart two stand-ins that one process has loaded. */
  snprintf(id->name, sizeof id->name, "/nccl-stand-in-%d-%zx-%d", getpid(), (size_t)&serial,
           atomic_fetch_add(&serial, 1));
  shm_unlink(id->name); /* of an earlier process with this number */
  return SUCCESS;
}

const char *ncclGetErrorString(int code) {
  static const char *texts[] = {"no error", "unhandled cuda error", "unhandled system error",
                                "internal error", "invalid argument", "invalid usage",
                                "remote process exited or there was a network error",
                                "NCCL operation in progress"};
  return code >= 0 && code <= IN_PROGRESS ? texts[code] : "unknown result code";
}

const char *ncclGetLastError(comm *c) {
  (void)c;
  return last_error;
}

static void *wait_for_all(void *argument) {
  comm *c = argument;
  int state = SUCCESS;
  if (is(c, STALL, "ncclCommInitRankConfig")) {
    while (!atomic_load(&c->stop)) usleep(100);
    state = REMOTE_ERROR;
  } else if (!meet(c)) {
    state = REMOTE_ERROR;
  }
  shm_unlink(c->name); /* all have attached it */
  atomic_store(&c->state, state);
  return NULL;
}

int ncclCommInitRankConfig(comm **out, int size, unique_id id, int rank, config *settings) {
  comm fake = {.rank = rank};
  ENTER(&fake, "ncclCommInitRankConfig");
  if (settings->magic != 0xcafebeef || settings->blocking != 0 || settings->size != sizeof *settings)
    return BAD_ARGUMENT;
  if (size > MAX_RANKS || rank < 0 || rank >= size || id.name[0] != '/') return BAD_ARGUMENT;
  comm *c = make(id.name, size, rank);
  if (c->shared == NULL) return SYSTEM_ERROR;
  *out = c;
  return start(c, wait_for_all);
}

#ifndef WITHOUT_FINALIZE
int ncclCommFinalize(comm *c) {
  ENTER(c, "ncclCommFinalize");
  return start(c, wait_for_all);
}
#endif

int ncclCommDestroy(comm *c) {
  ENTER(c, "ncclCommDestroy");
  release(c);
  return SUCCESS;
}

int ncclCommAbort(comm *c) {
  ENTER(c, "ncclCommAbort");
  atomic_store(&c->shared->aborted, 1);
  release(c);
  return SUCCESS;
}

int ncclCommGetAsyncError(comm *c, int *state) {
  *state = atomic_load(&c->state);
  if (DIE_AFTER > 0 && c->num_done >= DIE_AFTER && (FAULTY_RANK < 0 || c->rank == FAULTY_RANK) &&
      *state == SUCCESS)
    *state = REMOTE_ERROR;
#ifdef DIE_BESIDE
  if (c->is_child && atomic_load(&num_stalled)) *state = REMOTE_ERROR;
#endif
  return SUCCESS;
}

int ncclCommCount(const comm *c, int *count) {
  *count = c->size;
  return SUCCESS;
}

int ncclCommUserRank(const comm *c, int *rank) {
  *rank = c->rank;
  return SUCCESS;
}

#ifndef WITHOUT_REVOKE
int ncclCommRevoke(comm *c, int flags) {
  ENTER(c, "ncclCommRevoke");
  if (flags != 0) return BAD_ARGUMENT;
  atomic_store(&c->stop, 1);
  while (atomic_load(&c->state) == IN_PROGRESS) usleep(20);
  atomic_store(&c->stop, 0);
  atomic_store(&c->state, SUCCESS);
  return SUCCESS;
}
#endif

#ifndef WITHOUT_SPLIT
static void *divide(void *argument) {
  comm *c = argument;
  segment *s = c->shared;
  int state = REMOTE_ERROR;
  s->calls[c->rank].color = c->color;
  s->calls[c->rank].key = c->key;
  if (meet(c)) {
    int rank = 0, size = 0;
    for (int r = 0; r < c->size; r++) {
      if (s->calls[r].color != c->color) continue;
      size++;
      rank += s->calls[r].key < c->key || (s->calls[r].key == c->key && r < c->rank);
    }
    char name[96];
    snprintf(name, sizeof name, "%.50s-%d-%d", c->name, c->num_splits, c->color);
    if (c->color >= 0) {
      comm *child = make(name, size, rank);
      child->is_child = 1;
      *c->child = child;
    }
    state = meet(c) ? SUCCESS : REMOTE_ERROR;
    shm_unlink(name);
  }
  c->num_splits++;
  atomic_store(&c->state, state);
  return NULL;
}

int ncclCommSplit(comm *c, int color, int key, comm **out, config *settings) {
  ENTER(c, "ncclCommSplit");
  if (settings != NULL && settings->blocking != 0) return BAD_ARGUMENT;
  *out = NULL;
  c->color = color;
  c->key = key;
  c->child = out;
  return start(c, divide);
}
#endif

int ncclGroupStart(void) {
  group_depth++;
  return SUCCESS;
}

int ncclGroupEnd(void) {
  comm *c = group_comm;
  if (group_depth == 0) return BAD_USAGE;
  if (--group_depth > 0 || c == NULL) return SUCCESS;
  group_comm = NULL;
  ENTER(c, "ncclGroupEnd");
  return start(c, work);
}

static int enqueue(comm *c, operation o) {
  ENTER(c, o.name);
  if (atomic_load(&c->state) == IN_PROGRESS || o.kind < 0 || o.kind > 9 || o.op < 0 || o.op > 4)
    return BAD_USAGE; /* a non-blocking communicator takes nothing while it is in progress */
  if (c->num_ops == MAX_OPS) return INTERNAL_ERROR;
  c->ops[c->num_ops++] = o;
  if (group_depth > 0) {
    group_comm = c;
    return SUCCESS;
  }
  return start(c, work);
}

int ncclAllReduce(const void *send, void *receive, size_t count, int kind, int op, comm *c, void *stream) {
  (void)stream;
  return enqueue(c, (operation){"ncclAllReduce", send, receive, count, kind, op, -1, 0});
}

int ncclReduceScatter(const void *send, void *receive, size_t count, int kind, int op, comm *c, void *stream) {
  (void)stream;
  return enqueue(c, (operation){"ncclReduceScatter", send, receive, count, kind, op, -1, 0});
}

int ncclAllGather(const void *send, void *receive, size_t count, int kind, comm *c, void *stream) {
  (void)stream;
  return enqueue(c, (operation){"ncclAllGather", send, receive, count, kind, 0, -1, 0});
}

int ncclBroadcast(const void *send, void *receive, size_t count, int kind, int root, comm *c, void *stream) {
  (void)stream;
  return enqueue(c, (operation){"ncclBroadcast", send, receive, count, kind, 0, root, 0});
}

int ncclSend(const void *send, size_t count, int kind, int peer, comm *c, void *stream) {
  (void)stream;
  return enqueue(c, (operation){"ncclSend", send, NULL, count, kind, 0, peer, 0});
}

int ncclRecv(void *receive, size_t count, int kind, int peer, comm *c, void *stream) {
  (void)stream;
  return enqueue(c, (operation){"ncclRecv", NULL, receive, count, kind, 0, peer, 0});
}
