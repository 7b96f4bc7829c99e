// libtorch headers that ProcessGroupNCCL.hpp includes name these types of this library but call none of its functions.
// The library's own headers come with hundreds of megabytes that nothing else here needs.
#pragma once
typedef struct cusparseContext *cusparseHandle_t;
typedef enum { CUSPARSE_STATUS_SUCCESS = 0 } cusparseStatus_t;
