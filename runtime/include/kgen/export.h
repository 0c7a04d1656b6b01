/* Which symbols libkgen exports. */
#ifndef KGEN_EXPORT_H_
#define KGEN_EXPORT_H_
#if defined(_WIN32)
#define KGEN_API
#else
#define KGEN_API __attribute__((visibility("default")))
#endif
#endif
