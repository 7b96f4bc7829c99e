// Headers of libtorch that ProcessGroupNCCL.hpp includes name these types of this library and call nothing of it. Its own
// headers come with hundreds of megabytes that nothing else here needs.
#pragma once
typedef struct cublasLtContext *cublasLtHandle_t;
