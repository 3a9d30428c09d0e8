/* A libcuda.so.1 without a device: it hands out handles, notes calls, and does nothing. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uintptr_t current, handles = 0x1000;
static void note(const char *what, uintptr_t a, uintptr_t b) {
  const char *path = getenv("NOTES");
  FILE *file = path ? fopen(path, "a") : NULL;
  if (file) { fprintf(file, "%s %ld %ld\n", what, (long)a, (long)b); fclose(file); }
}
static int give(uintptr_t *out) { *out = handles += 0x1000; return 0; }
static int done(void) { return 0; }

int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuGetErrorName(int error, const char **name) { *name = "CUDA_ERROR"; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "an error"; return 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  switch (attribute) {
  case 16: *value = 132; break;      /* multiprocessors */
  case 38: *value = 50 << 20; break; /* L2 */
  case 39: *value = 2048; break;     /* threads of a multiprocessor */
  case 75: *value = 9; break;        /* compute capability */
  case 76: *value = 0; break;
  default: *value = 1;
  }
  return 0;
}
int cuDevicePrimaryCtxRetain(uintptr_t *context, int device) { *context = 0x100 + device; return 0; }
int cuCtxGetCurrent(uintptr_t *context) { *context = current; return 0; }
int cuCtxSetCurrent(uintptr_t context) { current = context; return 0; }
int cuCtxPushCurrent_v2(uintptr_t context) { note("push", context, 0); current = context; return 0; }
int cuCtxPopCurrent_v2(uintptr_t *context) { note("pop", current, 0); *context = current; current = 0; return 0; }
int cuCtxGetDevice(int *device) { *device = (int)current - 0x100; return 0; }
int cuLibraryLoadData(uintptr_t *library, const void *code) { note("load", 0, 0); return give(library); }
int cuLibraryGetKernel(uintptr_t *kernel, uintptr_t library, const char *name) { return give(kernel); }
int cuDeviceGetDefaultMemPool(uintptr_t *pool, int device) { return give(pool); }
int cuDeviceGetMemPool(uintptr_t *pool, int device) { return give(pool); }
int cuMemAllocFromPoolAsync(uintptr_t *address, size_t size, uintptr_t pool, uintptr_t stream) {
  note("allocate", size, stream);
  return give(address);
}
int cuMemAllocAsync(uintptr_t *address, size_t size, uintptr_t stream) {
  return cuMemAllocFromPoolAsync(address, size, 0, stream);
}
int cuMemsetD8Async(uintptr_t address, unsigned char value, size_t size, uintptr_t stream) {
  note("set", size, stream);
  return 0;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, uintptr_t kernel, int size, size_t shared) {
  *blocks = 2;
  return 0;
}
int cuEventCreate(uintptr_t *event, unsigned flags) { return give(event); }
int cuEventRecord(uintptr_t event, uintptr_t stream) { note("record", event, stream); return 0; }
int cuStreamWaitEvent(uintptr_t stream, uintptr_t event, unsigned flags) { note("wait", event, stream); return 0; }
int cuStreamIsCapturing(uintptr_t stream, int *status) { *status = stream == 0xCA90; return 0; }
int cuStreamSynchronize(uintptr_t stream) { note("synchronize", stream, 0); return 0; }
int cuStreamGetCtx(uintptr_t stream, uintptr_t *context) { *context = current; return 0; }
int cuPointerGetAttribute(void *value, int attribute, uintptr_t address) { *(int *)value = 1; return 0; }
typedef struct { unsigned grid[3], block[3], shared; uintptr_t stream; void *attributes; unsigned count; } Launch;
int cuLaunchKernelEx(const Launch *launch, uintptr_t kernel, void **parameters, void **extra) {
  if (getenv("NOTES")) note("launch", launch->grid[0], launch->stream);
  if (getenv("NOTES")) note("first", *(uintptr_t *)parameters[0], launch->block[0]);
  return 0;
}
int cuLaunchKernel(uintptr_t kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, uintptr_t stream, void **parameters, void **extra) {
  Launch launch = {{gx, gy, gz}, {bx, by, bz}, shared, stream, 0, 0};
  return cuLaunchKernelEx(&launch, kernel, parameters, extra);
}
int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
  char versioned[128];
  snprintf(versioned, sizeof versioned, "%s_v2", name);
  static void *self;
  if (!self) self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  *function = dlsym(self, versioned);
  if (!*function) *function = dlsym(self, name);
  if (!*function) *function = (void *)done;
  if (status) *status = 0;
  return 0;
}
int cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
