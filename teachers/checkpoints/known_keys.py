"""Keys of model files that transformers itself uses, and keys that are known to be harmless.

The lists hold names that published checkpoints have. A key in no list refuses the model by its name.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


HARMLESS_CONFIG = _words(
    """
    _name_or_path _num_labels architectures dtype torch_dtype transformers_version model_type tokenizer_class
    finetuning_task task_specific_params gradient_checkpointing use_bfloat16 torchscript output_past prefix language
    name tie_weights_ tie_encoder_decoder is_composition cross_attention_hidden_size output_attentions
    tf_legacy_loss model_max_length max_seq_length author license language_codes
    sinusoidal_pos_embds qa_dropout summary_activation summary_first_dropout summary_last_dropout
    summary_proj_to_labels summary_type summary_use_proj
    directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type
    net_structure_type num_memory_blocks gap_size down_scale_factor num_hidden_groups
    unsloth_fixed unsloth_version pretraining_tp onnx_config
    sbert_ce_default_activation_function sentence_transformers
    eos_token_ids num_labels attn_implementation _attn_implementation experts_implementation
    pad_token_id bos_token_id eos_token_id sep_token_id cls_token_id mask_token_id decoder_start_token_id unk_token_id
    use_cache vocab_type embedding_class reference_compile
    """
)
"""Keys of config.json that no model class reads, or that say how a model is trained, saved or generates text."""

HARMLESS_VALUES = {
    "position_embedding_type": ("absolute",),
    "pruned_heads": ({},),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "chunk_size_feed_forward": (0,),
    "adapters": ({},),
}
"""Keys of config.json that change nothing with these values; transformers 5 ignores others where no class has them."""

READ_BY_MODELS = _words(
    """
    is_causal use_bidirectional_attention head_dim sliding_window attention_chunk_size embedding_size layer_types
    relative_attention max_relative_positions position_buckets position_biased_input pos_att_type share_att_key
    norm_rel_ebd talking_head conv_kernel_size conv_groups conv_act attention_head_size cls_dropout summary_activation
    classifier_dropout hidden_dropout tie_word_embeddings legacy pooler_hidden_size pooler_dropout pooler_hidden_act
    """
)
"""Keys of config.json that code of transformers reads although the configuration class does not name them."""

PUBLISHED_CONFIG = _words("bert_model trainable encoder_type compression_dim dropout return_vecs")
"""Keys of matchmaker's published models, and of the directories written here in their form."""

TOKENIZER_KEYS = _words(
    """
    unk_token pad_token eos_token bos_token sep_token mask_token cls_token vocab merges vocab_file merges_file
    do_lower_case add_prefix_space additional_special_tokens extra_special_tokens model_specific_special_tokens
    added_tokens_decoder added_tokens_encoder tokenize_chinese_chars strip_accents never_split sp_model_kwargs errors
    keep_accents tgt_lang src_lang max_input_chars_per_word clean_up_tokenization_spaces remove_space
    do_split_on_punc extra_ids pad_token_label only_label_first_subword do_basic_tokenize sep_token_box pad_token_box
    cls_token_box trim_offsets normalize_text use_default_system_prompt spm_file word_delimiter_token target_lang
    unk_id offset lang2id id2lang language normalize normalization normalizer legacy monolingual_vocab_file
    do_clean_text clean_text wordpieces_prefix should_strip_spaces do_lowercase add_bos_token add_eos_token
    bos_token_id eos_token_id do_word_tokenize do_subword_tokenize word_tokenizer_type subword_tokenizer_type
    mecab_kwargs sudachi_kwargs jumanpp_kwargs split_by_punct legacy_behaviour bod_token eod_token line_token
    space_token return_token_type_ids token_type_ids_pattern num_madeup_words tokenizer_file backend is_local
    local_files_only name_or_path tokenizer_class processor_class _processor_class model_input_names padding_side
    truncation_side split_special_tokens special_tokens special_tokens_map_file special_tokens_map
    truncation_strategy max_length stride pad_to_multiple_of pad_token_type_id pad_token_id init_inputs
    full_tokenizer_file verbose cache_dir use_fast fast_tokenizer add_dummy_prefix do_remove_accents
    remove_accents tokenizer_truncation tokenizer_padding files_loaded chat_control_tokens image_token
    spaces_between_special_tokens from_slow trust_remote_code _commit_hash do_lowercase_and_remove_accent
    lang_codes langs x_sep_token post_processor precompiled_charsmap _spm_precompiled_charsmap do_sample
    clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output add_eos_token_id
    chat_template response_template response_schema model_max_length max_len max_model_input_sizes max_seq_length
    fix_mistral_regex auto_map language_codes do_normalize task unk_token_id unk_index pad_index cls_token_id
    sep_token_id mask_token_id
    """
)
"""Keys of tokenizer_config.json: transformers' tokenizers use them when they are loaded or called."""

HARMLESS_MODEL_ARGUMENTS = _words(
    "torch_dtype dtype attn_implementation device_map low_cpu_mem_usage use_safetensors add_pooling_layer"
)
"""Arguments of a transformer's load that change its precision, its place or its speed."""

TRANSFORMER_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
"""Configurations of a sentence-transformers Transformer; the first one with content is read."""

MODULE_KEYS = {
    "Pooling": "embedding_dimension word_embedding_dimension pooling_mode include_prompt pooling_mode_cls_token "
    "pooling_mode_max_tokens pooling_mode_mean_tokens pooling_mode_mean_sqrt_len_tokens "
    "pooling_mode_weightedmean_tokens pooling_mode_lasttoken",
    "Normalize": "module_input_name module_output_name",
    "Dense": "in_features out_features bias activation_function module_input_name module_output_name use_residual",
    "Dropout": "dropout",
    "LayerNorm": "dimension",
    "SpladePooling": "pooling_strategy activation_function embedding_dimension word_embedding_dimension chunk_size",
    "MultiVectorMask": "skiplist_words skiplist_tasks keep_only_token_ids",
    "LogitScore": "true_token_id false_token_id module_input_name",
}
"""Keys of the modules' config.json, for the modules that some architecture here runs or recognises."""
