/* A libcuda.so.1 of host memory, for the real pycuda and the real cuda-bindings: a stack of contexts for each thread, and
 * a stream that can be captured. What needs a current context fails without one. REFUSE names a step that fails. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEEDS_CONTEXT if (!depth) return 201 /* CUDA_ERROR_INVALID_CONTEXT */
#define MAY_REFUSE(step, error) if (getenv("REFUSE") && !strcmp(getenv("REFUSE"), step)) return error

typedef struct { void *to; const void *from; size_t size; } Copy;
typedef struct { int capturing, count; Copy copies[64]; } Stream;

static __thread void *stack[64];
static __thread int depth;
static Stream stream;
static int contexts, streams, memory, pinned, graphs, executables;

void host_cuda_left(int *left) {
    int counts[] = {contexts, streams, memory, pinned, graphs, executables};
    memcpy(left, counts, sizeof counts);
}

int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 12040; return 0; } /* as JetPack 6 */
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "host memory", size); return 0; }
int cuDeviceComputeCapability(int *major, int *minor, int device) { *major = 8; *minor = 7; return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) { *value = which == 75 ? 8 : which == 76 ? 7 : 1; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { contexts++; *context = &contexts; return 0; }
int cuDevicePrimaryCtxRelease(int device) { contexts--; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { contexts--; return 0; }
int cuCtxPushCurrent_v2(void *context) { stack[depth++] = context; return 0; }
int cuCtxPopCurrent_v2(void **context) { NEEDS_CONTEXT; *context = stack[--depth]; return 0; }
int cuCtxGetCurrent(void **context) { *context = depth ? stack[depth - 1] : 0; return 0; }
int cuCtxDetach(void *context) { return 201; } /* not for a primary context */
int cuStreamCreate(void **made, unsigned flags) { NEEDS_CONTEXT; streams++; *made = &stream; return 0; }
int cuStreamDestroy_v2(void *of) { NEEDS_CONTEXT; streams--; return 0; }
int cuStreamSynchronize(void *of) { NEEDS_CONTEXT; return stream.capturing ? 900 : 0; }
int cuMemAlloc_v2(void **made, size_t size) { NEEDS_CONTEXT; memory++; *made = malloc(size); return 0; }
int cuMemFree_v2(void *at) { NEEDS_CONTEXT; memory--; free(at); return 0; }
int cuMemHostAlloc(void **made, size_t size, unsigned flags) { NEEDS_CONTEXT; pinned++; *made = malloc(size); return 0; }
int cuMemFreeHost(void *at) { NEEDS_CONTEXT; pinned--; free(at); return 0; }

static int copy(void *to, const void *from, size_t size) {
    NEEDS_CONTEXT;
    if (stream.capturing) stream.copies[stream.count++] = (Copy){to, from, size};
    else memcpy(to, from, size);
    return 0;
}
int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t size, void *on) { return copy(to, from, size); }
int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t size, void *on) { return copy(to, from, size); }

int cuStreamBeginCapture_v2(void *of, int mode) {
    NEEDS_CONTEXT;
    MAY_REFUSE("begin", 900);
    if (of != &stream || mode != 1) return 1; /* thread local */
    stream.capturing = 1;
    stream.count = 0;
    return 0;
}
int cuStreamEndCapture(void *of, void **graph) {
    NEEDS_CONTEXT;
    if (!stream.capturing) return 904;
    stream.capturing = 0;
    *graph = 0;
    MAY_REFUSE("end", 901);
    *graph = memcpy(malloc(sizeof stream), &stream, sizeof stream);
    graphs++;
    return 0;
}
int cuGraphInstantiateWithFlags(void **made, void *graph, unsigned long long flags) {
    NEEDS_CONTEXT;
    MAY_REFUSE("instantiate", 801);
    *made = memcpy(malloc(sizeof stream), graph, sizeof stream);
    executables++;
    return 0;
}
int cuGraphDestroy(void *graph) { NEEDS_CONTEXT; graphs--; free(graph); return 0; }
int cuGraphExecDestroy(void *graph) { NEEDS_CONTEXT; executables--; free(graph); return 0; }
int cuGraphLaunch(void *graph, void *on) {
    NEEDS_CONTEXT;
    MAY_REFUSE("launch", 719);
    Stream *captured = graph;
    for (int i = 0; i < captured->count; i++)
        memcpy(captured->copies[i].to, captured->copies[i].from, captured->copies[i].size);
    return 0;
}
int cuGetErrorName(int error, const char **name) { *name = "AN_ERROR"; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "an error"; return 0; }

/* cuda-bindings asks here for every function; the newest form of each, as a driver of 12.4 answers. */
int cuGetProcAddress_v2(const char *name, void **found, int version, unsigned long long flags, void *status) {
    static const char *const forms[] = {"%s_v2", "%s", "%sWithFlags"};
    void *self = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    char symbol[256];
    *found = 0;
    for (int i = 0; i < 3 && !*found; i++) {
        snprintf(symbol, sizeof symbol, forms[i], name);
        *found = dlsym(self, symbol);
    }
    return *found ? 0 : 500;
}
int cuGetProcAddress(const char *name, void **found, int version, unsigned long long flags) {
    return cuGetProcAddress_v2(name, found, version, flags, 0);
}
