"""CLAIM 2024: 44 items on the reporting of AI in medical imaging.

Source: Tejani et al., Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 Update, Radiology: Artificial Intelligence
2024;6(4):e240300, doi 10.1148/ryai.240300. The journal's own table could not be opened; numbers and topics agree in two independent public
transcriptions of it (2026-11); what an item asks is said in our words.
"""

from __future__ import annotations

from retfound_jax.report.checklist import Guideline, Item

CLAIM = Guideline(
    id='claim',
    title='CLAIM 2024',
    source='Tejani et al., Radiology: Artificial Intelligence 2024;6(4):e240300, doi 10.1148/ryai.240300; numbers and topics after two '
    'public transcriptions of its table.',
    items=(
        Item('1', 'Title, abstract', 'Says that it is AI, and of which kind', ('title', 'model')),
        Item('2', 'Title, abstract', 'Summary of design, methods, results, conclusions', ('summary',)),
        Item('3', 'Introduction', 'Background, intended use and role', ('intended_use',)),
        Item('4', 'Introduction', 'Aims and hypotheses', ('objective',)),
        Item('5', 'Study design', 'Prospective or retrospective', ('study_design',)),
        Item('6', 'Study design', 'Goal of the study', ('objective', 'design')),
        Item('7', 'Data', 'Sources', ('data_source', 'population')),
        Item('8', 'Data', 'Who was included and who was not', ('eligibility', 'rejects')),
        Item('9', 'Data', 'Preprocessing', ('preprocessing',)),
        Item('10', 'Data', 'Selection of subsets', ('subset',)),
        Item('11', 'Data', 'De-identification', ('deidentification',)),
        Item('12', 'Data', 'How missing data were handled', ('missing_data',)),
        Item('13', 'Data', 'How images were acquired', ('acquisition', 'cameras')),
        Item('14', 'Reference standard', 'How it was defined and obtained', ('outcome_definition', 'label')),
        Item('15', 'Reference standard', 'Why this one', ('outcome_rationale',)),
        Item('16', 'Reference standard', 'Who annotated', ('outcome_assessors',)),
        Item('17', 'Reference standard', 'How the test set was annotated', ('outcome_assessors', 'outcome_blinding')),
        Item('18', 'Reference standard', 'Agreement between and within those who annotated', ('rater_agreement',)),
        Item('19', 'Partitions', 'How cases came into partitions', ('partition',)),
        Item('20', 'Partitions', 'At which level partitions are disjoint', ('disjoint',)),
        Item('21', 'Testing data', 'Intended sample size', ('sample_size', 'power')),
        Item('22', 'Model', 'Detailed description', ('model', 'input', 'output')),
        Item('23', 'Model', 'Software and packages', ('versions',)),
        Item('24', 'Model', 'How parameters were initialised', ('initialisation',)),
        Item('25', 'Training', 'Approach: augmentation, optimiser, number of models', ('training',)),
        Item('26', 'Training', 'How the final model was selected', ('selection',)),
        Item('27', 'Training', 'Ensembles', ('ensemble',)),
        Item('28', 'Evaluation', 'Metrics', ('metrics',)),
        Item('29', 'Evaluation', 'Significance and uncertainty', ('uncertainty',)),
        Item('30', 'Evaluation', 'Robustness or sensitivity analysis', ('robustness',)),
        Item('31', 'Evaluation', 'Explainability or interpretability', ('explanation',)),
        Item('32', 'Evaluation', 'Evaluation on internal data', ('performance',)),
        Item('33', 'Evaluation', 'Testing on external data', ('external',)),
        Item('34', 'Evaluation', 'Registration of a clinical trial', ('registration',)),
        Item('35', 'Results: data', 'How many were included and excluded', ('flow', 'rejects')),
        Item('36', 'Results: data', 'Who they are, in each partition and dataset', ('population', 'comparison')),
        Item('37', 'Results: model', 'Performance with its uncertainty', ('performance',)),
        Item('38', 'Results: model', 'Diagnostic performance and its precision', ('diagnostic',)),
        Item('39', 'Results: model', 'Which cases fail', ('failures',)),
        Item('40', 'Discussion', 'Limitations', ('limitations',)),
        Item('41', 'Discussion', 'What it means for practice', ('interpretation', 'intended_use')),
        Item('42', 'Other', 'Protocol or further technical detail', ('protocol', 'config')),
        Item(
            '43', 'Other', 'Whether software, model and data can be had', ('code_availability', 'model_availability', 'data_availability')
        ),
        Item('44', 'Other', 'Funding and the role of funders', ('funding',)),
    ),
)
