#pragma once
// TEST_SANITIZED is defined if a sanitizer stands between the program and the allocator. g++ says so in macros, clang by a query.

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TEST_SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define TEST_SANITIZED
#endif
#endif
