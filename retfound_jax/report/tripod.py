"""TRIPOD+AI: 27 items, with their parts, on the reporting of prediction models.

Source: Collins et al., TRIPOD+AI statement, BMJ 2024;385:e078378, doi 10.1136/bmj-2023-078378, table 2 (CC BY 4.0). Numbers and parts are
the table's, checked against a public transcription of it (2026-11); what an item asks is said in our words.
"""

from __future__ import annotations

from retfound_jax.report.checklist import Guideline, Item

TRIPOD = Guideline(
    id='tripod',
    title='TRIPOD+AI',
    source='Collins et al., BMJ 2024;385:e078378, doi 10.1136/bmj-2023-078378.',
    items=(
        Item('1', 'Title', 'Says that a prediction model is made or judged, for whom and for what', ('title',)),
        Item('2', 'Abstract', 'A summary after the checklist for abstracts', ('summary',)),
        Item('3a', 'Background', 'Clinical context, diagnosis or prognosis, why this model, which others there are', ('intended_use',)),
        Item('3b', 'Background', 'For whom, where in the care pathway, used by whom', ('intended_use', 'intended_users')),
        Item('3c', 'Background', 'Known inequalities in health between groups', ('health_inequalities',)),
        Item('4', 'Objectives', 'Aims; whether the model is developed, judged or both', ('objective', 'design')),
        Item(
            '5a', 'Data', 'Sources for development and for evaluation apart, why these, how representative', ('data_source', 'population')
        ),
        Item('5b', 'Data', 'Dates of collection', ('data_dates',)),
        Item('6a', 'Participants', 'Kind, number and place of centres', ('setting', 'sites')),
        Item('6b', 'Participants', 'Who was eligible', ('eligibility',)),
        Item('6c', 'Participants', 'Treatments and how they were handled', ('treatments',)),
        Item('7', 'Data preparation', 'Preprocessing and quality control, and whether alike for all groups', ('preprocessing', 'quality')),
        Item(
            '8a',
            'Outcome',
            'What is predicted, how and when assessed, why, and whether alike for all groups',
            ('outcome_definition', 'label'),
        ),
        Item('8b', 'Outcome', 'Who assessed it, where that takes judgement', ('outcome_assessors',)),
        Item('8c', 'Outcome', 'What assessors were blind to', ('outcome_blinding',)),
        Item('9a', 'Predictors', 'How predictors were chosen', ('input',)),
        Item('9b', 'Predictors', 'Each predictor, how and when measured', ('input', 'acquisition')),
        Item('9c', 'Predictors', 'Who measured them, where that takes judgement', ('no_reader',)),
        Item('10', 'Sample size', 'How the sizes came about and whether they suffice', ('sample_size', 'power')),
        Item('11', 'Missing data', 'How missing data were handled, why any were left out', ('missing_data', 'rejects')),
        Item('12a', 'Analysis', 'What data were used for what, and how they were divided', ('partition',)),
        Item('12b', 'Analysis', 'How predictors were transformed', ('preprocessing',)),
        Item('12c', 'Analysis', 'Kind of model, all steps of making it, tuning, internal validation', ('model', 'training', 'selection')),
        Item('12d', 'Analysis', 'Differences between clusters such as hospitals or countries', ('clusters',)),
        Item('12e', 'Analysis', 'Every measure and plot of performance', ('metrics',)),
        Item('12f', 'Analysis', 'Any updating of the model after judging it, such as recalibration', ('updating',)),
        Item('12g', 'Analysis', 'How predictions were calculated', ('predicting',)),
        Item('13', 'Class imbalance', 'Whether classes were balanced, how, and recalibration after it', ('imbalance',)),
        Item('14', 'Fairness', 'What was done for fairness, and why', ('fairness',)),
        Item('15', 'Output', 'What the model gives; how thresholds were chosen', ('output', 'thresholds')),
        Item('16', 'Training and evaluation', 'Differences between the data of development and of evaluation', ('differences',)),
        Item('17', 'Ethics', 'Ethics committee, consent or its waiver', ('ethics',)),
        Item('18a', 'Open science', 'Funding and the role of funders', ('funding',)),
        Item('18b', 'Open science', 'Conflicts of interest', ('conflicts',)),
        Item('18c', 'Open science', 'Protocol, or that there was none', ('protocol',)),
        Item('18d', 'Open science', 'Registration, or that there was none', ('registration',)),
        Item('18e', 'Open science', 'Whether the data can be had', ('data_availability',)),
        Item('18f', 'Open science', 'Whether the code can be had', ('code_availability', 'code')),
        Item('19', 'Involvement', 'How patients and the public took part, or that they did not', ('involvement',)),
        Item('20a', 'Participants', 'Flow of participants, with and without the outcome', ('flow', 'label')),
        Item('20b', 'Participants', 'Who they are, overall and by source, with what is missing', ('population', 'unrecorded')),
        Item('20c', 'Participants', 'Those of the evaluation beside those of the development', ('comparison',)),
        Item('21', 'Development', 'Participants and events in each analysis', ('events',)),
        Item(
            '22',
            'Specification',
            'The whole model, so that others can predict with it; any restriction',
            ('weights', 'predicting', 'licence'),
        ),
        Item('23a', 'Performance', 'Estimates with intervals, also by subgroup', ('performance', 'subgroups')),
        Item('23b', 'Performance', 'Differences in performance between clusters', ('clusters',)),
        Item('24', 'Updating', 'The updated model and how it performs', ('updating',)),
        Item('25', 'Interpretation', 'What the results mean, fairness included, next to earlier studies', ('interpretation',)),
        Item('26', 'Limitations', 'Limits and what they do to bias, uncertainty and generalisability', ('limitations',)),
        Item('27a', 'Usability', 'What to do with input that is poor or not there', ('unusable_input',)),
        Item('27b', 'Usability', 'What users have to do and to know', ('intended_users',)),
        Item('27c', 'Usability', 'What comes next, for use elsewhere', ('next_steps',)),
    ),
)
