"""The operators that a model file may hold: those that compute and do nothing else.

A file is data only if what it computes cannot touch anything but its own tensors. torch has operators that write files
(`aten::from_file`, `aten::save`), print, change the state of the process (`aten::manual_seed`)
or talk to other machines, and packages add their own; so what is allowed is named here, and all else is refused.

How it was made: the names of every schema registered in torch 2.13 were printed once, without namespaces of single
backends and machines (`c10d`, `inductor`, `mkldnn`, `profiler`, `symm_mem` …), and read one by one. Left out is
whatever takes a path, prints, seeds, calls back, sets or resizes the storage of a tensor, works on the optimiser, on
gradients, on sparse tensors, or is a test of torch's own. Random numbers may be drawn: the state of the
generator is put back after each pass. `aten::warn` is allowed, because torch's own layers call it.

`name*` stands for `name` and `name_`, the same in place. Overloads are not told apart.
"""

from __future__ import annotations

ATEN = {
    "convolutions and linear maps": """
        conv1d conv2d conv3d conv_tbc conv_depthwise3d conv_transpose1d conv_transpose2d conv_transpose3d convolution
        convolution_overrideable _convolution _convolution_mode _conv_depthwise2d cudnn_convolution
        cudnn_convolution_add_relu cudnn_convolution_relu cudnn_convolution_transpose mkldnn_convolution slow_conv3d
        slow_conv3d_forward slow_conv_dilated2d slow_conv_dilated3d slow_conv_transpose2d slow_conv_transpose3d
        _slow_conv2d_forward thnn_conv2d linear mkldnn_linear bilinear _trilinear addbmm* addmm* addmv* addr* baddbmm*
        _addmm_activation bmm mm mv matmul dot vdot inner outer ger chain_matmul einsum tensordot kron cross cdist
        _cdist_forward _euclidean_dist pdist _pdist_forward cosine_similarity pairwise_distance _int_mm _weight_norm
        _weight_norm_interface _weight_int8pack_mm _weight_int4pack_mm_for_cpu _dyn_quant_matmul_4bit
        _dyn_quant_pack_4bit_weight _convert_weight_to_int4pack_for_cpu to_mkldnn to_dense mkldnn_reorder_conv2d_weight
        mkldnn_reorder_conv3d_weight _mkldnn_reshape _mkldnn_transpose* _nnpack_available
    """,
    "normalisation": """
        batch_norm native_batch_norm _batch_norm_impl_index _batch_norm_no_update _batch_norm_with_update
        _batch_norm_with_update_functional _native_batch_norm_legit _native_batch_norm_legit_functional
        _native_batch_norm_legit_no_training cudnn_batch_norm quantized_batch_norm layer_norm native_layer_norm
        group_norm native_group_norm instance_norm rms_norm _fused_rms_norm norm native_norm frobenius_norm
        nuclear_norm norm_except_dim renorm*
    """,
    "pooling, resizing, padding": """
        adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d
        adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d
        fractional_max_pool2d fractional_max_pool3d max_pool1d max_pool1d_with_indices max_pool2d
        max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool2d max_unpool3d mkldnn_adaptive_avg_pool2d
        mkldnn_max_pool2d mkldnn_max_pool3d quantized_max_pool1d quantized_max_pool2d quantized_max_pool3d
        upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d
        upsample_nearest3d upsample_trilinear3d _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_lanczos2d_aa
        _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d __interpolate __upsample
        __upsample_bilinear __upsample_nearest affine_grid_generator grid_sampler grid_sampler_2d grid_sampler_3d
        _grid_sampler_2d_cpu_fallback cudnn_affine_grid_generator cudnn_grid_sampler constant_pad_nd pad _pad_circular
        _pad_enum reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
        replication_pad3d pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle im2col col2im unfold
    """,
    "activations and dropout": """
        celu* elu* gelu* glu hardshrink hardsigmoid* hardswish* hardtanh* leaky_relu* log_sigmoid log_sigmoid_forward
        log_softmax _log_softmax logit* mish* prelu _prelu_kernel relu* relu6* rrelu* rrelu_with_noise*
        rrelu_with_noise_functional selu* sigmoid* silu* softmax _softmax _safe_softmax _masked_softmax softplus
        softshrink tanh* threshold* _add_relu* dropout* native_dropout _fused_dropout alpha_dropout* feature_dropout*
        feature_alpha_dropout*
    """,
    "attention, recurrence, embedding": """
        scaled_dot_product_attention _scaled_dot_product_attention_math _scaled_dot_product_cudnn_attention
        _scaled_dot_product_efficient_attention _scaled_dot_product_flash_attention
        _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_fused_attention_overrideable _fused_sdp_choice
        _native_multi_head_attention _nested_tensor_from_mask _nested_tensor_from_mask_left_aligned to_padded_tensor
        nested_to_padded_tensor _transformer_encoder_layer_fwd _transform_bias_rescale_qkv lstm lstm_cell gru gru_cell
        rnn_tanh rnn_tanh_cell rnn_relu rnn_relu_cell mkldnn_rnn_layer _thnn_fused_gru_cell _thnn_fused_lstm_cell
        quantized_lstm quantized_lstm_cell quantized_gru quantized_gru_cell quantized_rnn_relu_cell
        quantized_rnn_tanh_cell embedding embedding_bag embedding_renorm* _embedding_bag _embedding_bag_forward_only
        one_hot pad_sequence _pack_padded_sequence _pad_packed_sequence
    """,
    "arithmetic": """
        abs* absolute* add* addcdiv* addcmul* ceil* clamp* clamp_max* clamp_min* clip* conj_physical* copysign*
        deg2rad* div* divide* divmod exp* exp2* expm1* fix* float_power* floor* floor_divide* floordiv fmax fmin fmod*
        frac* frexp gcd* hypot* lcm* ldexp* lerp* log* log10* log1p* log2* logaddexp logaddexp2 maximum minimum modf
        mul* multiply* nan_to_num* neg* negative* nextafter* positive pow* rad2deg* reciprocal* remainder* round*
        rsqrt* rsub sgn* sign* signbit sqrt* square* sub* subtract* true_divide* trunc* xlogy* heaviside* mathremainder
        fabs factorial degrees radians __round_to_zero_floordiv
    """,
    "trigonometry and special functions": """
        acos* acosh* angle arccos* arccosh* arcsin* arcsinh* arctan* arctan2* arctanh* asin* asinh* atan* atan2* atanh*
        cos* cosh* digamma* erf* erfc* erfinv* gamma i0* igamma* igammac* lgamma* mvlgamma* polygamma* sin* sinc* sinh*
        tan* special_airy_ai special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1 special_digamma
        special_entr special_erf special_erfc special_erfcx special_erfinv special_exp2 special_expit special_expm1
        special_gammainc special_gammaincc special_gammaln special_i0 special_i0e special_i1 special_i1e special_log1p
        special_log_ndtr special_log_softmax special_logit special_logsumexp special_modified_bessel_i0
        special_modified_bessel_i1 special_modified_bessel_k0 special_modified_bessel_k1 special_multigammaln
        special_ndtr special_ndtri special_polygamma special_psi special_round special_sinc special_softmax
        special_xlog1py special_xlogy special_zeta
    """,
    "comparison and logic": """
        all allclose any bitwise_and* bitwise_left_shift* bitwise_not* bitwise_or* bitwise_right_shift* bitwise_xor*
        eq* equal ge* greater* greater_equal* gt* is_nonzero isclose isfinite isin isinf isnan isneginf isposinf isreal
        le* less* less_equal* logical_and* logical_not* logical_or* logical_xor* lt* ne* not_equal* where __and__
        __contains__ __iand__ __ilshift__ __ior__ __irshift__ __is__ __isnot__ __ixor__ __lshift__ __not__ __or__
        __rshift__ __xor__ _is_all_true _is_any_true
    """,
    "reductions and order": """
        amax amin aminmax _aminmax argmax argmin argsort bincount bucketize count_nonzero cov corrcoef cummax cummin
        _cummax_helper _cummin_helper cumprod* cumsum* cumulative_trapezoid diff dist histc histogram kthvalue
        logcumsumexp _logcumsumexp logsumexp gradient max mean median min mode msort nanmean nanmedian nanquantile
        nansum prod quantile searchsorted sort std std_mean sum sum_to_size topk trace trapezoid trapz
        unique_consecutive unique_dim unique_dim_consecutive _unique _unique2 var var_mean
    """,
    "linear algebra and Fourier": """
        cholesky cholesky_inverse cholesky_solve det inverse linalg_cholesky linalg_cholesky_ex linalg_cond
        linalg_cross linalg_det linalg_diagonal linalg_eig linalg_eigh linalg_eigvals linalg_eigvalsh
        linalg_householder_product linalg_inv linalg_inv_ex linalg_lstsq linalg_lu linalg_lu_factor linalg_lu_solve
        linalg_matmul linalg_matrix_exp linalg_matrix_norm linalg_matrix_power linalg_matrix_rank linalg_multi_dot
        linalg_norm linalg_pinv linalg_qr linalg_slogdet linalg_solve linalg_solve_ex linalg_solve_triangular
        linalg_svd linalg_svdvals linalg_tensorinv linalg_tensorsolve linalg_vander linalg_vecdot linalg_vector_norm
        _linalg_check_errors _linalg_det _linalg_eigh _linalg_slogdet _linalg_solve_ex _linalg_svd logdet matrix_exp
        matrix_power pinverse qr slogdet svd triangular_solve fft_fft fft_fft2 fft_fftfreq fft_fftn fft_fftshift
        fft_hfft fft_hfft2 fft_hfftn fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_ihfft fft_ihfft2 fft_ihfftn
        fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftfreq fft_rfftn _fft_c2c _fft_c2r _fft_r2c stft istft
        bartlett_window blackman_window hamming_window hann_window kaiser_window complex real imag conj _conj
        _conj_physical polar resolve_conj resolve_neg _neg_view view_as_complex view_as_real is_conj is_neg
    """,
    "shape and views": """
        adjoint alias alias_copy as_strided* as_strided_copy as_strided_scatter atleast_1d atleast_2d atleast_3d
        block_diag broadcast_shapes broadcast_tensors broadcast_to cartesian_prod cat chunk column_stack combinations
        concat concatenate contiguous diag diag_embed diagflat diagonal diagonal_copy diagonal_scatter dsplit dstack
        expand expand_as expand_copy flatten flip fliplr flipud hsplit hstack mH mT matrix_H meshgrid moveaxis movedim
        narrow narrow_copy numpy_T permute permute_copy ravel repeat repeat_interleave reshape reshape_as _reshape_copy
        roll rot90 row_stack slice slice_copy slice_scatter split split_copy split_with_sizes split_with_sizes_copy
        squeeze* squeeze_copy stack _stack swapaxes* swapdims* t* t_copy tensor_split tile transpose* transpose_copy
        unbind unbind_copy unflatten unfold_copy unsafe_chunk unsafe_split unsafe_split_with_sizes unsqueeze*
        unsqueeze_copy view view_as view_copy _unsafe_view vsplit vstack _shape_as_tensor _reshape_from_tensor
        _dim_arange
    """,
    "indexing": """
        argwhere ccol_indices col_indices crow_indices fill* fill_diagonal_ gather index index_add* index_copy*
        index_fill* index_put* index_reduce* index_select indices masked_fill* masked_scatter* masked_select nonzero
        nonzero_numpy nonzero_static put* row_indices scatter* scatter_add* scatter_reduce* select select_copy
        select_scatter take take_along_dim tril* tril_indices triu* triu_indices _index_put_impl* _unsafe_index
        _unsafe_index_put _unsafe_masked_index _unsafe_masked_index_put_accumulate
    """,
    "making and converting tensors": """
        arange as_tensor bernoulli* clone copy* cpu cuda detach* detach_copy empty empty_like empty_permuted
        empty_strided exponential* eye full full_like item lift lift_fresh lift_fresh_copy linspace logspace
        multinomial new_empty new_empty_strided new_full new_ones new_zeros normal* normal_functional ones ones_like
        poisson rand rand_like randint randint_like randn randn_like random* randperm scalar_tensor tensor to type_as
        uniform* vander zero* zeros zeros_like _to_copy _to_cpu _cast_Byte _cast_Char _cast_Double _cast_Float
        _cast_Half _cast_Int _cast_Long _cast_Short _autocast_to_full_precision _autocast_to_reduced_precision
        _local_scalar_dense _efficientzerotensor requires_grad_
    """,
    "losses, which some classifiers hold": """
        binary_cross_entropy binary_cross_entropy_with_logits ctc_loss cosine_embedding_loss cross_entropy_loss
        hinge_embedding_loss huber_loss kl_div l1_loss margin_ranking_loss mse_loss multi_margin_loss
        multilabel_margin_loss nll_loss nll_loss2d nll_loss2d_forward nll_loss_forward nll_loss_nd poisson_nll_loss
        smooth_l1_loss soft_margin_loss triplet_margin_loss
    """,
    "quantisation": """
        dequantize fake_quantize_per_channel_affine fake_quantize_per_channel_affine_cachemask
        fake_quantize_per_tensor_affine fake_quantize_per_tensor_affine_cachemask
        _fake_quantize_learnable_per_channel_affine _fake_quantize_learnable_per_tensor_affine
        _fake_quantize_per_tensor_affine_cachemask_tensor_qparams fbgemm_linear_fp16_weight
        fbgemm_linear_fp16_weight_fp32_activation fbgemm_linear_int8_weight fbgemm_linear_int8_weight_fp32_activation
        fused_moving_avg_obs_fake_quant int_repr q_per_channel_axis q_per_channel_scales q_per_channel_zero_points
        q_scale q_zero_point qscheme quantize_per_channel quantize_per_tensor quantize_per_tensor_dynamic
        choose_qparams_optimized _choose_qparams_per_tensor _empty_affine_quantized _empty_per_channel_affine_quantized
        _make_per_channel_quantized_tensor _make_per_tensor_quantized_tensor
    """,
    "questions about tensors": """
        can_cast data dense_dim device dim element_size get_autocast_dtype get_device has_torch_function
        is_autocast_cpu_enabled is_autocast_enabled is_coalesced is_complex is_contiguous is_distributed
        is_floating_point is_grad_enabled is_inference is_leaf is_non_overlapping_and_dense is_pinned is_same_size
        is_scripting is_signed is_strides_like_format len numel promote_types result_type size sparse_dim
        storage_offset stride sym_is_contiguous sym_numel sym_size sym_storage_offset sym_stride sym_constrain_range
        sym_constrain_range_for_size _functional_sym_constrain_range _functional_sym_constrain_range_for_size
        _assert_async _assert_scalar _assert_tensor_metadata _functional_assert_async _functional_assert_scalar
        _get_tracing_state _infer_size _size_if_not_equal _unwrap_optional cudnn_is_acceptable
    """,
    "numbers, lists, dicts and text of TorchScript": """
        Bool Complex ComplexImplicit Delete Float FloatImplicit Int IntImplicit ScalarImplicit Size append bin
        capitalize center chr clear count dict endswith expandtabs extend find format get hash hex insert isalnum
        isalpha isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper items join keys
        list ljust lower lstrip oct ord partition percentFormat pop popitem range remove replace reverse rfind rindex
        rjust rpartition rsplit rstrip setdefault sorted splitlines startswith str strip swapcase title update upper
        values wait warn zfill __derive_index __getitem__ __range_length _list_to_tensor _set_item _tensor_to_list
    """,
}

OTHERS = {
    # Of `prim`, what makes up a graph: constants, attributes, branches, loops and plain values.
    "prim": """
        Constant Param Return GetAttr SetAttr ListConstruct ListUnpack TupleConstruct TupleIndex TupleSlice TupleUnpack
        DictConstruct If Loop RaiseException Uninitialized CreateObject isinstance unchecked_cast
        unchecked_unwrap_optional NumToTensor ImplicitTensorToNum ConstantChunk FusedConcat VarConcat VarStack
        StringIndex ModuleContainerIndex EnumName EnumValue TypeCheck abs data device dtype grad id index is_cpu
        is_cuda is_ipu is_maia is_meta is_mkldnn is_mps is_mtia is_nested is_quantized is_sparse is_sparse_csr
        is_vulkan is_xla is_xpu itemsize layout max min name nbytes rangelist requires_grad tolist type fork awaitable
        awaitable_nowait awaitable_wait mkldnn_convolution ConstantMKLDNNTensor BroadcastMKLDNNTensors MKLDNNClamp*
        MKLDNNHardSigmoid* MKLDNNHardSwish* MKLDNNHardTanh* MKLDNNLayerNorm* MKLDNNScalarMul*
    """,
    "quantized": """
        add add_out add_relu add_relu_out add_scalar add_scalar_out add_scalar_relu add_scalar_relu_out batch_norm
        batch_norm1d batch_norm1d_relu batch_norm2d batch_norm2d_relu batch_norm3d batch_norm3d_relu batch_norm_relu
        cat cat_out cat_relu cat_relu_out celu clamp conv1d conv1d_dynamic conv1d_prepack conv1d_relu conv1d_unpack
        conv2d conv2d_add conv2d_add_relu conv2d_dilation conv2d_dynamic conv2d_groups conv2d_output_padding
        conv2d_padding conv2d_prepack conv2d_relu conv2d_stride conv2d_transpose conv2d_unpack conv2d_unpack_sizes
        conv3d conv3d_dilation conv3d_dynamic conv3d_groups conv3d_output_padding conv3d_padding conv3d_prepack
        conv3d_relu conv3d_stride conv3d_transpose conv3d_unpack conv_prepack conv_unpack conv_transpose1d
        conv_transpose1d_dynamic conv_transpose1d_prepack conv_transpose1d_unpack conv_transpose2d
        conv_transpose2d_dilation conv_transpose2d_dynamic conv_transpose2d_groups conv_transpose2d_output_padding
        conv_transpose2d_padding conv_transpose2d_prepack conv_transpose2d_stride conv_transpose2d_transpose
        conv_transpose2d_unpack dropout elu embedding_4bit embedding_byte embedding_bag_4bit embedding_bag_byte
        embedding_bag_prepack embedding_bag_unpack group_norm hardswish instance_norm layer_norm leaky_relu linear
        linear_dynamic linear_dynamic_fp16 linear_leaky_relu linear_prepack linear_prepack_fp16 linear_relu
        linear_relu_dynamic linear_relu_dynamic_fp16 linear_tanh linear_unpack linear_unpack_fp16
        linear_with_input_q_dq_qweight_dq_output_fp32 linear_with_input_q_dq_qweight_dq_relu_output_fp32
        make_quantized_cell_params make_quantized_cell_params_dynamic make_quantized_cell_params_fp16 matmul max_pool1d
        max_pool2d mul mul_out mul_relu mul_relu_out mul_scalar mul_scalar_out mul_scalar_relu mul_scalar_relu_out
        prelu quantized_gru_cell_dynamic quantized_lstm_cell_dynamic quantized_rnn_relu_cell_dynamic
        quantized_rnn_tanh_cell_dynamic relu6 sigmoid softmax threshold
    """,
    "quantized_decomposed": """
        choose_qparams choose_qparams_symmetric choose_qparams_per_token choose_qparams_per_token_asymmetric
        quantize_per_tensor quantize_per_channel quantize_per_channel_group quantize_per_token dequantize_per_tensor
        dequantize_per_channel dequantize_per_channel_group dequantize_per_token fake_quant_per_channel
        convert_element_type
    """,
    "prims": """
        broadcast_in_dim collapse collapse_view convert_element_type iota split_dim squeeze transpose view_of where cat
        abs add amax amin ceil clone cos div empty_strided eq erf exp expm1 floor fmod full ge gt le log log1p log2 lt
        maximum minimum mul ne neg pow prod reciprocal remainder reshape round rsqrt sign sin sqrt sub sum tanh trunc
        var
    """,
    # Operators that run other graphs of the file; those graphs are looked through too.
    "higher_order": """
        cond while_loop map_impl scan associative_scan invoke_subgraph wrap_with_set_grad_enabled wrap_with_autocast
        out_dtype strict_mode _export_tracepoint
    """,
}

# What an exported program calls besides operators: arithmetic on sizes.
ARITHMETIC = {
    "_operator": """
        abs add and_ eq floordiv ge getitem gt invert le lshift lt mod mul ne neg not_ or_ pos pow rshift sub truediv
        xor
    """,
    "math": """
        acos asin atan ceil cos cosh floor log2 sin sinh sqrt tan tanh trunc
    """,
    "torch": """
        sym_float sym_int sym_ite sym_max sym_min sym_not sym_sum _check _sym_sqrt
    """,
}


def _named(prefix: str, words: str) -> set[str]:
    names = words.split()
    in_place = {f"{name[:-1]}_" for name in names if name.endswith("*")}
    return {prefix + name.removesuffix("*") for name in names} | {prefix + name for name in in_place}


ALLOWED = frozenset().union(
    *(_named("aten::", words) for words in ATEN.values()), *(_named(f"{ns}::", words) for ns, words in OTHERS.items())
)
PYTHON = frozenset().union(*(_named(f"{module}.", words) for module, words in ARITHMETIC.items()))

# Objects of C++ that a TorchScript file may make: packed weights of quantised layers. The code that packs them is
# torch's own, and reads nothing but tensors.
PACKED = frozenset({"quantized", "rnn"})
