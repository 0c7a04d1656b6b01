// Code objects that this program must not run: made for host ABI TEST_ABI and a CPU with TEST_CPU.
extern "C" {
__attribute__((visibility("default"))) unsigned kgen_host_bind(const void*) { return TEST_ABI; }
__attribute__((visibility("default"))) const char* kgen_host_cpu() { return TEST_CPU; }
}
